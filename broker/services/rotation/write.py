"""One change of a copy in Vault, in an order that heals after a crash between any two steps.

A version that was asked for has an anchor of its own, found by the version's number, so that the next attempt finds
what the last one made; one whose time had come shares that of the version before. What only a label could tell is
written there before it is needed: anchors that still have to be deleted are in the label of the current version. An
anchor that is missed all the same (two crashes in a row, a label that somebody removed) goes with the anchor that all
of them hang below, and its token ends by itself.
"""

from dataclasses import dataclass, replace

from broker.errors import BrokerError, Reason
from broker.model.account import account_user
from broker.model.anchor import vault_anchor
from broker.model.audit_record import Issuance, Origin
from broker.model.cluster import ClusterInfo
from broker.model.decision import Allowed
from broker.model.former_grants import FormerGrant
from broker.model.stored_copy import CopyLabel, RetiredAnchor, StoredCopy
from broker.model.token import Anchor, MintedToken
from broker.model.vault_path import CopyKey, VaultPlace
from broker.model.vault_secret import vault_secret
from broker.ports import Anchors, AuditLog, Clock, VaultStore
from broker.services.rotation.behind_callers import BelowMinter
from broker.services.rotation.copy import (
    MAX_NAMED,
    MAX_RETIRED,
    Target,
    anchor_of,
    bound_as_made,
    out_of_use,
    replaced,
    undescribed,
)


@dataclass(frozen=True, slots=True)
class _Below:
    """What a version's token is bound to, what that hangs below, and what is kept for versions before it."""

    anchor: Anchor
    root_uid: str
    retired: tuple[RetiredAnchor, ...]


class CopyWriter:
    """Writes copies, tidies them up and ends their tokens.

    Whoever calls sees to it that one call at a time is for one path.
    """

    def __init__(
        self,
        *,
        store: VaultStore,
        anchors: Anchors,
        minter: BelowMinter,
        audit: AuditLog,
        clock: Clock,
        cluster: ClusterInfo,
        place: VaultPlace,
    ) -> None:
        self._store = store
        self._anchors = anchors
        self._minter = minter
        self._audit = audit
        self._clock = clock
        self._cluster = cluster
        self._place = place

    async def write(self, target: Target, copy: StoredCopy | None, root: Anchor, origin: Origin) -> StoredCopy:
        """Write a fresh token on top of ``copy``, which is the target's own, and return what is there now.

        ``root`` is the anchor below which those of the versions hang.
        Raises BrokerError of the minter, the anchors, the audit log and the store.
        """
        current = copy.current_version if copy else 0
        anchor, retired = await self._anchor(target, copy, root, current + 1)
        return await self._put(target, current, _Below(anchor, root.uid, retired), origin)

    async def renew(self, target: Target, label: CopyLabel, origin: Origin) -> StoredCopy:
        """Write a fresh token on top of the version that ``label`` describes, whose time has come, and return it.

        It is bound to the anchor of the one before, which is left to end by itself: an anchor of its own would be made
        only to be deleted then. Raises BrokerError like :meth:`write`; anchor_missing where that anchor is gone.
        """
        return await self._put(target, label.version, _Below(label.anchor, label.root_uid, label.retired), origin)

    async def _put(self, target: Target, current: int, below: _Below, origin: Origin) -> StoredCopy:
        token = await self._mint(target, below.anchor)
        self._audit.issued(self._record(target, token, origin))
        label = _label(target, current + 1, token, below)
        path = self._place.path(target.key)
        data = vault_secret(self._cluster, target.client.id.namespace, target.grant.service_account, token)
        if current == 0:
            # Claimed before there is data: data without a label would be a stranger's to the next visit.
            await self._store.label(path, label)
            await self._store.write(path, data, cas=0)
        else:
            # Labelled after the write: until then the label is about the version that readers get.
            await self._store.write(path, data, cas=current)
            await self._store.label(path, label)
        return StoredCopy(label.version, managed=True, label=label, intact=True)

    async def tidy(self, copy: StoredCopy) -> StoredCopy:
        """Delete the anchors whose time is over, and return the copy without them."""
        label, now = copy.label, self._clock.now()
        if label is None or all(one.until > now for one in label.retired):
            return copy
        for one in label.retired:
            if one.until <= now:
                await self._anchors.delete(label.client.namespace, one.anchor.name, one.anchor.uid)
        rest = replace(label, retired=tuple(one for one in label.retired if one.until > now))
        await self._store.label(self._place.path(_key(label)), rest)
        return replace(copy, label=rest)

    async def end(self, label: CopyLabel) -> None:
        """End the tokens of a copy that is to be deleted, before it is: the label is where they are known from.

        The one at the top is enough, where the versions' hang below it: those that were made before it is known don't.
        """
        top = vault_anchor(label.client_uid, FormerGrant(label.grant, label.service_account))
        anchors: list[tuple[str, str | None]] = [(top.name, None)]
        anchors += [(one.name, one.uid) for one in label.anchors]
        for name, uid in anchors:
            try:
                await self._anchors.delete(label.client.namespace, name, uid)
            except BrokerError as error:
                # Without rights in a namespace that is given up, deletion of the TokenClient takes them.
                if error.reason is not Reason.BROKER_NOT_AUTHORIZED:
                    raise

    async def _anchor(
        self, target: Target, copy: StoredCopy | None, root: Anchor, version: int
    ) -> tuple[Anchor, tuple[RetiredAnchor, ...]]:
        """Return the anchor of a version, and those that are kept for the versions before it."""
        label, now = copy.label if copy else None, self._clock.now()
        if copy is None or label is None or label.root_uid not in {root.uid, ""}:
            # Nothing was before, or it went with the anchor that it hung below.
            return await self._version(target, root, version), ()
        kept = tuple(one for one in label.retired if one.until > now)
        over = tuple(one for one in label.retired if one.until <= now)[-MAX_RETIRED:]
        if len(kept) >= MAX_RETIRED and bound_as_made(label, target):
            return await self._shared(target, copy, label.anchor, root, over + kept)
        anchor = await self._version(target, root, version)
        gone = await self._cut_short(target, copy, label, root) or [replaced(label, target, now)]
        return anchor, tuple(one for one in (*over, *kept, *gone) if one.anchor != anchor)

    async def _shared(
        self, target: Target, copy: StoredCopy, before: Anchor, root: Anchor, named: tuple[RetiredAnchor, ...]
    ) -> tuple[Anchor, tuple[RetiredAnchor, ...]]:
        """Return the anchor of the version before, for a next one that is to have none of its own.

        An attempt of another replica's that began when there was room may have made some, which no label names: what is
        found is named, or used for the next version. Where the label has no room, they go with the one above.
        """
        until = out_of_use(target, self._clock.now())
        found = [await self._find(target, root, version) for version in undescribed(copy)]
        own = await self._find(target, root, copy.current_version + 1)
        gone = [*filter(None, found), *([before] if own is not None else [])]
        if len(named) + len(gone) > MAX_NAMED:
            return before, named
        return own or before, named + tuple(RetiredAnchor(one, until) for one in gone)

    async def _find(self, target: Target, root: Anchor, version: int) -> Anchor | None:
        return await self._anchors.find(target.client, anchor_of(target, root, version))

    async def _cut_short(self, target: Target, copy: StoredCopy, label: CopyLabel, root: Anchor) -> list[RetiredAnchor]:
        """Return the anchors of versions that were written and never described; readers may hold their tokens.

        Among them that of the described one, which the next may share, and which must not end when its own token does.
        """
        until, versions = out_of_use(target, self._clock.now()), undescribed(copy)
        own = [RetiredAnchor(await self._version(target, root, version), until) for version in versions]
        return [RetiredAnchor(label.anchor, until), *own] if own else []

    async def _version(self, target: Target, root: Anchor, version: int) -> Anchor:
        return await self._anchors.ensure(target.client, anchor_of(target, root, version), root)

    async def _mint(self, target: Target, anchor: Anchor) -> MintedToken:
        allowed = Allowed(target.grant, target.audience, target.copy.ttl_seconds)
        return await self._minter.mint_below(target.client, allowed, anchor)

    def _record(self, target: Target, token: MintedToken, origin: Origin) -> Issuance:
        return Issuance(
            at=self._clock.now(),
            origin=origin,
            client=target.client.id,
            client_uid=target.client.uid,
            grant=target.grant.name,
            subject=account_user(target.client.id.namespace, target.grant.service_account),
            audience=target.audience,
            requested_seconds=target.copy.ttl_seconds,
            granted_seconds=token.granted_seconds,
            expires_at=token.expires_at,
            id=token.jti,
            jti=token.jti,
            token_sha256=token.sha256,
            delivery="vault",
        )


def _key(label: CopyLabel) -> CopyKey:
    return CopyKey(label.client, label.grant)


def _label(target: Target, version: int, token: MintedToken, below: _Below) -> CopyLabel:
    return CopyLabel(
        client_uid=target.client.uid,
        client=target.client.id,
        grant=target.grant.name,
        server=target.server,
        service_account=target.grant.service_account,
        audience=target.audience,
        ttl_seconds=target.copy.ttl_seconds,
        version=version,
        issued_at=token.issued_at,
        expires_at=token.expires_at,
        jti=token.jti,
        anchor=below.anchor,
        retired=below.retired,
        root_uid=below.root_uid,
        account_uid=token.account_uid,
    )

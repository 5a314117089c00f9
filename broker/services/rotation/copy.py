"""What should be in Vault for a grant, and how what is there compares. Pure: values in, values out."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.model.anchor import AnchorId, is_version, vault_anchor, version_anchor
from broker.model.client import Client, Grant, VaultCopy
from broker.model.decision import Rules, allowed_audiences
from broker.model.schedule import lead_seconds, renewal_time
from broker.model.stored_copy import CopyLabel, RetiredAnchor, StoredCopy
from broker.model.token import Anchor
from broker.model.vault_path import CopyKey, VaultPlace

READING_SLACK = timedelta(seconds=60)
"""A replaced token lives this much longer than ``renewBefore``: a reader's poll is not exact."""

MAX_UNDESCRIBED = 16
"""So many versions on top of the described one are taken care of. A smaller window would move past the anchors of
an attempt that crashed, when somebody else goes on writing."""

MAX_RETIRED = 16
"""More replaced versions at a time than this share an anchor with the next one."""

MAX_NAMED = 3 * MAX_RETIRED
"""So many anchors beside its own a label has room for: Vault allows 64 keys, and it needs 16 for itself."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a registered grant wants kept in Vault."""

    client: Client
    grant: Grant
    copy: VaultCopy
    audience: str
    server: str

    @property
    def key(self) -> CopyKey:
        """Names the copy."""
        return CopyKey(self.client.id, self.grant.name)

    @property
    def readers_poll(self) -> timedelta:
        """How slowly readers may look, so that they never hold a token that ended."""
        return timedelta(seconds=self.copy.renew_before_seconds)

    @property
    def readers_late(self) -> timedelta:
        """For how long readers may hold a version that was replaced."""
        return self.readers_poll + READING_SLACK


def anchor_of(target: Target, root: Anchor, version: int) -> AnchorId:
    """Return which anchor is that of a version's own; ``root`` is the one above those of all versions."""
    return version_anchor(vault_anchor(target.client.uid, target.grant), root, version)


def target_of(client: Client, name: str, rules: Rules, place: VaultPlace) -> Target | None:
    """Return what a grant wants kept in Vault, or None where it wants nothing there."""
    grant = client.grant(name)
    if grant is None or grant.vault is None:
        return None
    return Target(client, grant, grant.vault, allowed_audiences(grant, rules)[0], place.server)


def owned(copy: StoredCopy, target: Target) -> bool:
    """Tell whether a path is this very TokenClient's, not that of a namesake."""
    label = copy.label
    return label is not None and (label.client_uid, label.client, label.grant) == (
        target.client.uid,
        target.client.id,
        target.grant.name,
    )


def left_over(copy: StoredCopy, key: CopyKey, server: str, now: datetime) -> bool:
    """Tell whether a path was made for a client of this name, on this cluster.

    Where another cluster has the same name by mistake, its copies are left alone while they live.
    """
    label = copy.label
    return (
        label is not None
        and (label.client, label.grant) == (key.client, key.grant)
        and (label.server == server or label.expires_at <= now)
    )


def due(copy: StoredCopy, target: Target, root: Anchor, account_uid: str, now: datetime) -> bool:
    """Tell whether a new version has to be written on top of the target's own copy.

    ``root`` is the anchor above those of its versions: where it is another one than theirs, they are worth nothing.
    So are those of another account than the one of ``account_uid``, which is empty where it is not known.
    """
    label = copy.label
    if label is None or label.root_uid != root.uid or not as_it_should_be(copy, target, account_uid, now):
        return True
    return now >= renewal(label, target)


def as_it_should_be(copy: StoredCopy, target: Target, account_uid: str, now: datetime) -> bool:
    """Tell whether nothing but time can make a new version due, as far as the copy itself shows."""
    label = copy.label
    if label is None or not copy.intact or label.version != copy.current_version:
        return False
    if label.account_uid and account_uid and label.account_uid != account_uid:
        return False
    return _as_asked(label, target) and not _requested(label, target, now)


def _requested(label: CopyLabel, target: Target, now: datetime) -> bool:
    """Tell whether the owner has asked for a new version since; what lies in the future has not been asked yet."""
    requested = target.client.rotate_requested
    return requested is not None and label.issued_at < requested <= now


def renewal(label: CopyLabel, target: Target) -> datetime:
    """Return when a version is to be replaced."""
    wanted = target.copy
    return renewal_time(
        label.issued_at, label.expires_at, wanted.ttl_seconds, wanted.renew_before_seconds, str(target.key)
    )


def safe_poll_seconds(label: CopyLabel, target: Target) -> int:
    """Return how slowly readers may look; less than ``renewBefore`` where the API server shortened the token."""
    wanted = target.copy
    return int(lead_seconds(label.issued_at, label.expires_at, wanted.ttl_seconds, wanted.renew_before_seconds))


def replaced(label: CopyLabel, target: Target, now: datetime) -> RetiredAnchor:
    """Return the anchor of a version that is replaced now, kept until its token ends or no reader holds it."""
    return RetiredAnchor(label.anchor, min(label.expires_at, out_of_use(target, now)))


def out_of_use(target: Target, now: datetime) -> datetime:
    """Return when no reader holds a version any more that is replaced now. Whole seconds, as labels have them."""
    return (now + target.readers_late).replace(microsecond=0)


def undescribed(copy: StoredCopy) -> range:
    """Return the versions on top of the described one: writes that were cut short, or somebody else's."""
    if copy.label is None:
        return range(0)
    return range(max(copy.label.version, copy.current_version - MAX_UNDESCRIBED) + 1, copy.current_version + 1)


def bound_as_made(label: CopyLabel, target: Target) -> bool:
    """Tell whether what ends the tokens of a grant's copy ends those bound to the anchor that a label names, too.

    Somebody may have written another one's there, such as of a client that is not suspended when this one is.
    """
    return is_version(label.anchor.name, vault_anchor(target.client.uid, target.grant), label.root_uid)


def _as_asked(label: CopyLabel, target: Target) -> bool:
    return (label.service_account, label.audience, label.ttl_seconds, label.server) == (
        target.grant.service_account,
        target.audience,
        target.copy.ttl_seconds,
        target.server,
    )

"""The ports of one replica: each call goes over its wire to the models of its neighbours."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from broker.errors import BrokerError, Reason
from broker.model.access import Action, PolicyRule, Rules
from broker.model.anchor import AnchorId, AnchorKind
from broker.model.api_resources import Catalogue
from broker.model.audit_record import Issuance, RefusedRequest, Revoked
from broker.model.client import Client
from broker.model.lease import LeaseRecord, Term
from broker.model.sensitive import Sensitive
from broker.model.stored_copy import CopyLabel, StoredCopy
from broker.model.token import Anchor, MintedToken, TokenSpec
from broker.ports import LiveToken, Registration, Reviewed
from tests.model.kubernetes import Kubernetes, Token
from tests.model.owed_ends import OwedEnds
from tests.model.second_looks import SecondLooks
from tests.model.wire import DEADLINE, How, Wire
from tests.support.discovery import catalogue
from tests.support.fake_vault import Data, FakeVault

T = TypeVar("T")

TOPS = {AnchorKind.GRANT, AnchorKind.VAULT, AnchorKind.TRIAL}


class Ports:
    """Implements what is asked of Kubernetes and of Vault, and the audit log."""

    def __init__(
        self,
        wire: Wire,
        kube: Kubernetes,
        vault: FakeVault,
        book: "AuditBook",
        name: str,
        margin: float,
        looks: SecondLooks,
        heard: Callable[[datetime, float], None],
        written: Callable[[Registration, Registration], None],
    ) -> None:
        self._wire = wire
        self._kube = kube
        self._book = book
        self._name = name
        self._margin = margin
        self._written = written
        self._looks = looks
        self.store = VaultPort(wire, kube, vault, book)
        self.lease = LeasePort(wire, kube, heard)
        self.lead = LeadPort(wire, kube, name)

    # Anchors

    async def ensure(self, client: Client, which: AnchorId, parent: Anchor | None = None) -> Anchor:
        """See :meth:`broker.ports.Anchors.ensure`."""
        owner = client.uid if parent is None else parent.uid
        within = DEADLINE if parent is not None else min(DEADLINE, self._margin)
        self._looks.makes(client, which, parent)
        made = await self._wire.call(
            _port("anchors.ensure", which), lambda late: self._kube.ensure(which, owner, self._name, late=late), within
        )
        self._looks.found(which, made)
        return made

    async def find(self, client: Client, which: AnchorId) -> Anchor | None:
        """See :meth:`broker.ports.Anchors.find`."""
        del client
        found = await self._wire.call(_port("anchors.find", which), lambda _: self._kube.find(which))
        self._looks.found(which, found)
        return found

    async def delete(self, namespace: str, name: str, uid: str | None = None) -> bool:
        """See :meth:`broker.ports.Anchors.delete`."""
        del namespace

        def effect(late: bool) -> bool:  # noqa: FBT001 - what the wire says
            if late and uid is None and name in self._kube.secrets:
                self._book.ended_late.add(self._kube.secrets[name].uid)
            return self._kube.delete_secret(name, uid)

        return await self._wire.call("anchors.delete", effect)

    # Minter

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """See :meth:`broker.ports.Minter.mint`."""
        self._looks.mints(spec)
        return await self._wire.call("minter.mint", lambda _: self._kube.mint(spec))

    async def rehearse(self, spec: TokenSpec) -> MintedToken:
        """See :meth:`broker.ports.Minter.rehearse`."""
        return await self._wire.call("minter.rehearse", lambda _: self._kube.mint(spec))

    # The session

    async def refresh_forever(self) -> None:
        """Have no credentials to keep fresh."""
        await asyncio.Event().wait()

    # Reviewer

    async def inspect(self, token: Sensitive) -> LiveToken | None:
        """See :meth:`broker.ports.Reviewer.inspect`; nobody asks in these histories."""
        raise AssertionError(token)

    async def review(self, token: str, audience: str) -> Reviewed | None:
        """See :meth:`broker.ports.Reviewer.review`; nobody asks in these histories."""
        raise AssertionError(token, audience)

    # AccessReviews

    async def rules(self, token: Sensitive, namespace: str) -> Rules:
        """Return what the account of a token may do."""
        del namespace
        return await self._wire.call("access.rules", lambda _: self._rules(token.reveal()))

    async def allowed(self, token: Sensitive, action: Action, namespace: str) -> bool:
        """Never asked: the rules leave nothing in doubt."""
        raise AssertionError(token, action, namespace)

    async def catalogue(self) -> Catalogue:
        """Return what the cluster serves."""
        return await self._wire.call("access.catalogue", lambda _: catalogue())

    def _rules(self, value: str) -> Rules:
        if not self._kube.accepts(value):
            raise BrokerError(Reason.KUBERNETES_UNAVAILABLE, "401")
        account = self._kube.tokens[value].account
        rules = [PolicyRule(("list",), ("",), ("pods",))]
        rules += [PolicyRule(("create",), ("",), ("pods",))] if account in self._kube.strong else []
        rules += [PolicyRule(("get",), ("",), ("secrets",))] if account in self._kube.reading else []
        self._book.looked_at |= {self._kube.tokens[value].account_uid} if len(rules) == 1 else set()
        return Rules(tuple(rules))

    # StatusWriter, Finalizers, EventRecorder

    async def write(self, registration: Registration, status: Mapping[str, Any]) -> bool:
        """See :meth:`broker.ports.StatusWriter.write`."""
        now = await self._wire.call("statuses.write", lambda _: self._kube.write_status(registration, status))
        if now is not None:
            self._written(registration, now)
        return now is not None

    async def put(self, registration: Registration) -> Registration:
        """See :meth:`broker.ports.Finalizers.put`."""
        if "tokenbroker.dev/anchors" in registration.finalizers:
            return registration
        now = await self._wire.call("finalizers.put", lambda _: self._kube.put_finalizer(registration))
        self._written(registration, now)
        return now

    async def release(self, registration: Registration) -> None:
        """See :meth:`broker.ports.Finalizers.release`."""
        if "tokenbroker.dev/anchors" in registration.finalizers:
            await self._wire.call("finalizers.release", lambda _: self._release(registration))

    def _release(self, registration: Registration) -> None:
        held = self._kube.held_by(registration.uid)
        self._kube.release(registration)
        if held and not self._kube.lately_forbidden:
            self._book.wrong.append(f"{self._name} lets {registration.id} go, and {held} live")

    async def record(self, registration: Registration, event_reason: str, note: str, *, warning: bool) -> None:
        """See :meth:`broker.ports.EventRecorder.record`."""
        del registration, event_reason, note, warning
        try:
            await self._wire.call("events.record", lambda _: None)
        except BrokerError:
            return

    # AuditLog

    def issued(self, record: Issuance) -> None:
        """See :meth:`broker.ports.AuditLog.issued`."""
        how = self._wire.now("audit.issued")
        if not self._is_written(how):
            raise BrokerError(Reason.AUDIT_UNAVAILABLE, "disk full")
        self._book.issued.append(record)

    def refused(self, record: RefusedRequest) -> None:
        """See :meth:`broker.ports.AuditLog.refused`."""
        if self._is_written(self._wire.now("audit.refused")):
            self._book.refused.append(record)

    def revoked(self, record: Revoked) -> None:
        """See :meth:`broker.ports.AuditLog.revoked`."""
        if self._is_written(self._wire.now("audit.revoked")):
            self._book.revoked.append(record)

    @staticmethod
    def _is_written(how: How | None) -> bool:
        return how in {None, How.SLOW, How.SLOW_BACK, How.CRASH_AFTER, How.CANCEL_BEFORE, How.CANCEL_AFTER}


def _port(call: str, which: AnchorId) -> str:
    """Return what a call is armed by: that for the anchor above a copy's versions has a name of its own."""
    return f"{call} root" if which.kind is AnchorKind.VAULT else call


class AuditBook:
    """What was written down, what calls that came late have done, and which accounts were found to be good."""

    def __init__(self) -> None:
        self.issued: list[Issuance] = []
        self.revoked: list[Revoked] = []
        self.refused: list[RefusedRequest] = []
        self.ended_late: set[str] = set()
        self.looked_at: set[str] = set()
        self.labelled_late: set[tuple[str, ...]] = set()
        self.owed = OwedEnds()
        self.wrong: list[str] = []

    def put_into_vault(self, token: Token) -> None:
        """Take note of what readers of Vault get from now on."""
        if all(record.token_sha256 != f"sha-{token.value}" for record in self.issued):
            self.wrong.append(f"{token.value} is in Vault without an audit record")
        if token.account_uid not in self.looked_at:
            self.wrong.append(f"{token.value} is in Vault for an account that nobody has looked at")


class LeasePort:
    """Implements LeaseStore."""

    def __init__(self, wire: Wire, kube: Kubernetes, heard: Callable[[datetime, float], None]) -> None:
        self._wire = wire
        self._kube = kube
        self._heard = heard

    async def read(self) -> LeaseRecord | None:
        """See :meth:`broker.ports.LeaseStore.read`."""
        return await self._wire.call("lease.read", lambda _: self._kube.lease.record)

    async def write(self, term: Term, over: LeaseRecord | None) -> LeaseRecord | None:
        """See :meth:`broker.ports.LeaseStore.write`."""

        def effect(_: bool) -> tuple[LeaseRecord | None, datetime]:  # noqa: FBT001 - what the wire says
            return self._kube.lease.put(term, over), self._kube.now().replace(microsecond=0)

        began = asyncio.get_running_loop().time()
        written, when = await self._wire.call("lease.write", effect)
        if written is not None:
            self._heard(when, asyncio.get_running_loop().time() - began)
        return written


class LeadPort:
    """Implements LeadRecorder."""

    def __init__(self, wire: Wire, kube: Kubernetes, name: str) -> None:
        self._wire = wire
        self._kube = kube
        self._name = name

    async def record(self, *, leading: bool) -> None:
        """See :meth:`broker.ports.LeadRecorder.record`."""

        def effect(late: bool) -> None:  # noqa: FBT001 - what the wire says
            if not late:  # people go by the time of an Event
                self._kube.told_to_lead[self._name] = leading

        await self._wire.call("lead.record", effect)


class VaultPort:
    """Implements VaultStore. ``_seen`` is by path the version that this replica knows to be the current one."""

    def __init__(self, wire: Wire, kube: Kubernetes, vault: FakeVault, book: AuditBook) -> None:
        self._wire = wire
        self._kube = kube
        self._vault = vault
        self._book = book
        self._seen: dict[tuple[str, ...], int] = {}

    async def inspect(self, path: tuple[str, ...]) -> StoredCopy | None:
        """See :meth:`broker.ports.VaultStore.inspect`."""
        copy = await self._wire.call("vault.inspect", lambda _: _at_once(self._vault.inspect(path)))
        self._seen[path] = copy.current_version if copy is not None else 0
        return copy

    async def write(self, path: tuple[str, ...], data: Data, cas: int) -> int:
        """See :meth:`broker.ports.VaultStore.write`."""
        if self._seen.get(path) != cas:
            self._book.wrong.append(f"{path} is written on top of {cas}, and {self._seen.get(path)} was seen")

        def effect(_: bool) -> int:  # noqa: FBT001 - what the wire says
            version = _at_once(self._vault.write(path, data, cas))
            token = data["token"]
            assert isinstance(token, Sensitive)
            self._book.put_into_vault(self._kube.tokens[token.reveal()])
            return version

        self._seen[path] = await self._wire.call("vault.write", effect)
        return self._seen[path]

    async def label(self, path: tuple[str, ...], label: CopyLabel) -> None:
        """See :meth:`broker.ports.VaultStore.label`."""

        def effect(late: bool) -> None:  # noqa: FBT001 - what the wire says
            if late:
                self._book.labelled_late.add(path)
            _at_once(self._vault.label(path, label))
            self._book.owed.note(label, self._kube)

        await self._wire.call("vault.label", effect)

    async def remove(self, path: tuple[str, ...]) -> None:
        """See :meth:`broker.ports.VaultStore.remove`."""

        def effect(late: bool) -> None:  # noqa: FBT001 - what the wire says
            if late:
                self._book.labelled_late.add(path)
            _at_once(self._vault.remove(path))

        await self._wire.call("vault.remove", effect)
        self._seen[path] = 0

    async def children(self, path: tuple[str, ...]) -> list[str]:
        """See :meth:`broker.ports.VaultStore.children`."""
        return await self._wire.call("vault.children", lambda _: _at_once(self._vault.children(path)))

    async def reach_active(self) -> None:
        """See :meth:`broker.ports.VaultStore.reach_active`."""
        await self._wire.call("vault.reach_active", lambda _: _at_once(self._vault.reach_active()))


def _at_once(work: Awaitable[T]) -> T:
    """Return the result of something that waits for nothing."""
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits")

"""Replicas and their neighbours, what users and readers do, and what they hold."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from broker.errors import BrokerError
from broker.model.anchor import grant_anchor, vault_anchor
from broker.model.audit_record import Issuance, Origin
from broker.model.client import Client, ClientId
from broker.model.decision import Ask, standing
from broker.model.sensitive import Sensitive
from tests.model.calm import Calm
from tests.model.clients import ACCOUNTS, BY
from tests.model.clocks import MachineClock
from tests.model.kubernetes import Kubernetes
from tests.model.ports import AuditBook
from tests.model.replica import Replica
from tests.model.truth import HEARD, SIGHT, Key, Truth, key_of, keys_of
from tests.model.wire import Faults
from tests.support.fake_vault import FakeVault
from tests.support.virtual_time import JumpingLoop


@dataclass(slots=True)
class Held:
    """A token that somebody was handed; ``id`` is what it is revoked by."""

    value: str
    id: str
    key: Key
    revoked: bool = False


@dataclass(slots=True)
class Knowledge:
    """What a replica that was asked could know then."""

    allowed: bool
    blind: bool


@dataclass(slots=True)
class World:
    """Everything. ``judge`` looks at it whenever something has happened; ``wrong`` lists what must never be.

    ``disturbed`` is when something was last out of order for anybody, ``redated`` when the API server's clock was set.
    """

    loop: JumpingLoop = field(default_factory=JumpingLoop)
    vault: FakeVault = field(init=False)
    kube: Kubernetes = field(init=False)
    truth: Truth = field(init=False)
    audit: AuditBook = field(default_factory=AuditBook)
    faults: Faults = field(default_factory=Faults)
    clocks: dict[str, MachineClock] = field(default_factory=dict)
    replicas: dict[str, Replica] = field(default_factory=dict)
    gone: list[Replica] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    reads: dict[str, float] = field(default_factory=dict)
    owed: dict[str, Replica] = field(default_factory=dict)
    strangers: dict[tuple[str, ...], int] = field(default_factory=dict)
    unlabelled: set[tuple[str, ...]] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)
    judge: Callable[["World"], None] = lambda _world: None
    disturbed: float = 0.0
    redated: float = 0.0
    calm: Calm = field(default_factory=Calm)
    wrong: list[str] = field(default_factory=list)
    _starts: int = 0

    def __post_init__(self) -> None:
        """Start the models."""
        self.kube = Kubernetes(self.loop)
        self.vault = FakeVault(after=lambda _: self.read_vault())
        self.truth = Truth(self.kube)
        self.kube.accounts = {name: self.kube.uid() for name in ACCOUNTS}

    def do(self, what: Callable[[], object]) -> None:
        """Let something happen at once, and take note of what is true before and after it."""

        async def now() -> None:
            what()

        self.truth.look()
        self.loop.run_until_complete(now())
        self.truth.look()
        self._judge()

    def pass_(self, seconds: float) -> None:
        """Let time pass; readers of Vault look all the time."""
        self.truth.look()
        self.loop.pass_(seconds)
        self.truth.look()
        self.read_vault()
        self._judge()

    def _judge(self) -> None:
        self.calm.look(self.kube.monotonic(), self._able(), self.faults.hit_at)
        blind = any(it.sight.cut or not it.running for it in self.replicas.values())
        if blind or self.kube.forbidden or self.faults.away or any(self.faults.armed.values()):
            self.disturbed = self.kube.monotonic()
        self.judge(self)

    def _able(self) -> Iterator[str]:
        """Return the processes that could lead and renew, whichever does."""
        for it in self.replicas.values():
            reaches = all(map(it.wire.reaches, ("kube", "lease", "vault")))
            if it.running and reaches and not it.sight.cut and not self.kube.forbidden:
                yield it.name

    def close(self) -> None:
        """End everything."""
        self.judge = lambda _: None
        self.do(self._end_all)
        self.loop.pass_(30)
        self.loop.run_until_complete(_give_up())
        self.loop.close()

    def _end_all(self) -> None:
        for one in self.replicas.values():
            one.die()

    # Replicas

    def start(self, name: str) -> None:
        """Start a replica in the place of one that ended."""
        if name in self.replicas:
            self.gone.append(self.replicas.pop(name))
        self._starts += 1
        self.clocks.setdefault(name, MachineClock(self.loop))

        def begin() -> None:
            it = Replica(f"{name}{self._starts}", self.clocks[name], self.kube, self.vault, self.audit, self.faults)
            self.replicas[name] = it
            told, changed = it.registry.on_change, it.leadership.on_change

            def hear(client_id: ClientId) -> None:
                self._owe(it, client_id)
                told(client_id)

            def lead(leading: bool) -> None:  # noqa: FBT001 - told, not asked
                self.owed = {value: who for value, who in self.owed.items() if who is not it or leading}
                changed(leading)

            it.registry.on_change, it.leadership.on_change = hear, lead

        self.do(begin)

    def set_clock(self, whose: str, ahead: float) -> None:
        """Set a machine's clock; where it is the API server's, dates mean something else from then on."""
        if whose in self.clocks:
            self.clocks[whose].set(ahead)
            return
        self.kube.clock.set(ahead)
        self.disturbed = self.redated = self.kube.monotonic()
        for key in self.truth.past:
            self.truth.harm(key, for_seconds=HEARD)

    def forgive(self, who: Replica) -> None:
        """Expect nothing more of a replica that ended."""
        self.owed = {value: one for value, one in self.owed.items() if one is not who}

    def _owe(self, who: Replica, client_id: ClientId) -> None:
        """Note the tokens that a leader has to end which hears of a change, even if it is taken back at once."""
        before, now = who.reconciler._seen.get(client_id), who.registry.seen(client_id)
        if before is None or now is None or not who.leading or now.deleting:
            return
        if (now.generation, now.uid) == (before.generation, before.uid):
            return
        client, keys = now.client, {key for key, past in self.truth.past.items() if past.client == client_id}
        if client is None and not now.suspended:
            return
        if client is not None and standing(client, self.kube.now()) is None:
            keys -= keys_of(client)
        for token, key in self.tokens():
            if key in keys:
                self.owed.setdefault(token, who)

    # What is held

    def tokens(self) -> list[tuple[str, Key]]:
        """Return all tokens that somebody may hold, with whose they are."""
        return [(it.token_sha256.removeprefix("sha-"), self.key_of(it)) for it in self.audit.issued]

    def key_of(self, record: Issuance) -> Key:
        """Return whose a token is by its audit record."""
        return Key(record.client_uid, record.grant, record.subject.rpartition(":")[2])

    def current(self, path: tuple[str, ...]) -> str | None:
        """Return the token that readers of a path get."""
        entry = self.vault.entries.get(path)
        data = entry.versions[-1] if entry is not None and entry.versions else None
        value = data.get("token") if data else None
        return value.reveal() if isinstance(value, Sensitive) else None

    def read_vault(self) -> None:
        """Let readers look at everything in Vault."""
        for path in self.vault.entries:
            token = self.current(path)
            if token is not None:
                self.reads[token] = self.kube.monotonic()

    # Requests

    def ask(self, name: str, client_id: ClientId, grant: str, *, deliver: bool = False) -> asyncio.Task[object] | None:
        """Let a client ask a replica for a token, and check what comes of it when it comes."""
        it = self.replicas[name]
        if not it.running:
            return None
        self.truth.look()
        task: asyncio.Task[object] = self.loop.create_task(self._asked(it, client_id, grant, deliver=deliver))
        it.callers.add(task)
        task.add_done_callback(it.callers.discard)
        return task

    async def _asked(self, it: Replica, client_id: ClientId, grant: str, *, deliver: bool) -> str:
        origin = Origin("r", proved_by=BY)
        try:
            known = self._knowledge(it, client_id, grant)
            registration = it.registry.get(client_id)
            client = registration.client if registration is not None and not registration.deleting else None
            if client is None:
                return "invalid_client"
            if deliver:
                await it.services.deliverer.deliver(client, Ask(grant), origin)
                return "delivered"
            issued = await it.services.issuer.issue(client, Ask(grant), origin)
            if issued.allowed.grant.reuse_seconds:  # it was decided on anew
                known = self._knowledge(it, client_id, grant)
        except BrokerError as error:
            return str(error.reason)
        if it.dead:
            return "dead"
        self._handed_out(it, client, grant, issued.id, issued.token.value.reveal(), known)
        return "issued"

    def _knowledge(self, it: Replica, client_id: ClientId, grant: str) -> Knowledge:
        seen = it.registry.seen(client_id)
        client = seen.client if seen is not None and not seen.deleting else None
        one = client.grant(grant) if client is not None else None
        past = self.truth.past.get(key_of(client, one)) if client is not None and one is not None else None
        blind = past is not None and past.blind is not None and past.blind < self.kube.monotonic() - SIGHT
        return Knowledge(it.served(client_id) is not None, blind)

    def _handed_out(self, it: Replica, client: Client, name: str, token_id: str, value: str, known: Knowledge) -> None:
        grant = client.grant(name)
        assert grant is not None
        self.held.append(Held(value, token_id, key_of(client, grant)))
        records = sum(record.token_sha256 == f"sha-{value}" for record in self.audit.issued)
        if records < sum(one.value == value for one in self.held):
            self.wrong.append(f"{it.name} handed {value} out without an audit record")
        if self.kube.tokens[value].account_uid not in self.audit.looked_at:
            self.wrong.append(f"{it.name} handed {value} out for an account that nobody has looked at")
        if not known.allowed:
            self.wrong.append(f"{it.name} handed {value} out, and knew that it must not")
        if known.blind:
            self.wrong.append(f"{it.name} handed {value} out, long after there was a reason not to")

    def revoke(self, name: str, held: Held, client_id: ClientId) -> Coroutine[Any, Any, None]:
        """Return what lets a client end a token of its own."""

        async def work() -> None:
            it = self.replicas[name]
            try:
                registration = it.registry.get(client_id)
                if registration is None or registration.client is None or registration.uid != held.key.uid:
                    return
                held_by = {one.name: one.service_account for one in registration.client.grants}
                await it.services.revoker.by_id(registration.client, held.id, Origin("r"))
                # It is looked for under the client's grants as they are now.
                held.revoked = held.revoked or held_by.get(held.key.grant) == held.key.account
            except BrokerError:
                self.truth.harm(held.key)  # perhaps it was done all the same

        return work()

    # What users do to what is not theirs

    def revoke_all(self, client: Client, *, now: bool) -> None:
        """Do what ``tokenbroker client revoke-all`` does."""
        for one in client.grants:
            self.truth.harm(key_of(client, one))
            for which in (grant_anchor, vault_anchor) if now else (grant_anchor,):
                self.kube.remove_secret(which(client.uid, one).name)
        asked = self.kube.now().replace(microsecond=0) + timedelta(seconds=1)
        it = self.kube.resources[client.id]
        it.client = replace(it.client, rotate_requested=asked)
        self.kube.changed(client.id)

    def meddle(self, path: tuple[str, ...], how: str) -> None:
        """Overwrite or delete the current version of a path in Vault, remove all of it, or take its label away."""
        entry = self.vault.entries.get(path)
        if how == "remove":
            self.vault.entries.pop(path, None)
            self.strangers.pop(path, None)
            self.unlabelled.add(path)
        elif how == "overwrite":
            self.vault.stranger_writes(path)
        elif how == "delete" and entry is not None and entry.versions:
            self.vault.delete_current(path)
        elif how == "unlabel" and entry is not None:
            entry.label, entry.stranger = None, True
            self.unlabelled.add(path)
        entry = self.vault.entries.get(path)
        if entry is not None and entry.stranger:
            self.strangers[path] = len(entry.versions)

    def harm_account(self, account: str) -> None:
        """Take note that an account is not what it was."""
        for key in self.truth.past:
            if key.account == account:
                self.truth.harm(key)


async def _give_up() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""Histories of brokers among failing neighbours: hypothesis draws what happens, the world does it, the checks judge."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from broker.model.client import Client, ClientId
from broker.model.decision import standing
from tests.model.calls import PORTS
from tests.model.checks import CALM, always, at_rest, ended_in_time
from tests.model.clients import ACCOUNTS, JOB, RENEW_BEFORE, WEB, grants, new_client, path_of
from tests.model.feed import LAG_SECONDS
from tests.model.truth import key_of
from tests.model.wire import PASSING, How
from tests.model.world import Held, World

NAMES = ("a", "b")
KINDS = ("kept", "single", "both", "reused", "plain")
SHAPES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from(ACCOUNTS)),
    min_size=1,
    max_size=3,
    unique_by=lambda shape: shape[0],
).map(tuple)
FAULTS = st.lists(
    st.tuples(st.sampled_from(PORTS), st.sampled_from([0, 0, 1, 2, 3]), st.sampled_from(PASSING)), max_size=5
)
MEDDLING = ("overwrite", "delete", "remove", "unlabel")
CLIENTS = st.sampled_from([WEB, WEB, JOB])
REPLICAS = st.sampled_from(NAMES)
SECONDS = st.sampled_from([0.0, 0.3, 1.0, 5.0, 20.0, 40.0, 95.0, 310.0, 620.0, 1260.0, 2461.0, 5000.0])
ENDED_WITHIN = 330.0
"""Until a cut watch is found out (135 s) and listed again, a leader is there (45 s), and what failed is tried again."""

Shapes = tuple[tuple[str, str], ...]


class BrokerMachine(RuleBasedStateMachine):
    """Two replicas, Kubernetes and Vault, and those who use and break them."""

    world: World

    def tell(self, world: World) -> None:
        """Hear of a history that went well, for who wants to count."""

    def teardown(self) -> None:
        """Let everything work, and look at what has become of it."""
        if not hasattr(self, "world"):
            return
        try:
            self._comes_to_rest()
            self.tell(self.world)
        finally:
            self.world.close()

    @initialize(shapes=SHAPES, faults=FAULTS, wait=st.sampled_from([0.0, 60.0]))
    def begin(self, shapes: Shapes, faults: list[tuple[str, int, How]], wait: float) -> None:
        """Start two replicas, and register a client."""
        self.world = World(judge=lambda world: _require(always(world)))
        for name in NAMES:
            self.world.start(name)
        self.fault_all(faults)
        self.world.do(lambda: self.world.kube.apply(new_client(WEB, self.world.kube.uid(), shapes)))
        self.world.pass_(wait)

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.world.pass_(seconds)

    # Owners of clients

    @rule(client_id=CLIENTS, shapes=SHAPES)
    def register(self, client_id: ClientId, shapes: Shapes) -> None:
        """Register a client, or change its grants."""
        it = self._client(client_id)
        if it is not None:
            self._change(it, grants=grants(shapes))
        elif client_id not in self.world.kube.resources:
            self.world.do(lambda: self.world.kube.apply(new_client(client_id, self.world.kube.uid(), shapes)))

    @rule(client_id=CLIENTS)
    def suspend_or_resume(self, client_id: ClientId) -> None:
        """Suspend a client, or resume it."""
        client = self._client(client_id)
        self._change(client, suspended=client is not None and not client.suspended)

    @rule(client_id=CLIENTS, seconds=st.sampled_from([None, -5.0, 0.5, 30.0, 700.0]))
    def end_at(self, client_id: ClientId, seconds: float | None) -> None:
        """Give a registration an end, or none."""
        end = None if seconds is None else self.world.kube.now() + timedelta(seconds=seconds)
        self._change(self._client(client_id), not_after=end)

    @rule(client_id=CLIENTS)
    def spoil_or_mend(self, client_id: ClientId) -> None:
        """Let a specification be one that cannot be read, or mend it."""
        it = self.world.kube.resources.get(client_id)
        if it is not None and not it.deleting:
            changed = replace(it.client, generation=it.client.generation + 1)
            self.world.do(lambda: self.world.kube.apply(changed, valid=not it.valid))

    @rule(client_id=CLIENTS, orphan=st.booleans())
    def delete(self, client_id: ClientId, orphan: bool) -> None:  # noqa: FBT001 - drawn
        """Delete a TokenClient."""
        if self._client(client_id) is not None:
            self.world.do(lambda: self.world.kube.delete_client(client_id, orphan=orphan))

    @rule(client_id=CLIENTS, now=st.booleans())
    def revoke_all(self, client_id: ClientId, now: bool) -> None:  # noqa: FBT001 - drawn
        """End all tokens of a client, and ask for new ones."""
        client = self._client(client_id)
        if client is not None:
            self.world.do(lambda: self.world.revoke_all(client, now=now))

    # Those who use them

    @rule(name=REPLICAS, client_id=CLIENTS, kind=st.sampled_from(KINDS), wait=st.sampled_from([0.0, 20.0]))
    def ask(self, name: str, client_id: ClientId, kind: str, wait: float) -> None:
        """Ask for a token."""
        self.world.ask(name, client_id, kind)
        self.world.pass_(wait)

    @rule(name=REPLICAS, client_id=CLIENTS, kind=st.sampled_from(list(RENEW_BEFORE)), wait=st.sampled_from([0.0, 20.0]))
    def deliver(self, name: str, client_id: ClientId, kind: str, wait: float) -> None:
        """Ask for a new version in Vault."""
        self.world.ask(name, client_id, kind, deliver=True)
        self.world.pass_(wait)

    @precondition(lambda self: any(self._revocable()))
    @rule(name=REPLICAS, number=st.integers(0, 20))
    def revoke(self, name: str, number: int) -> None:
        """End one token."""
        held = list(self._revocable())
        one = held[number % len(held)]
        client_id = self.world.truth.past[one.key].client
        if self.world.replicas[name].running:
            self.world.loop.run_until_complete(self.world.revoke(name, one, client_id))

    # Administrators

    @rule(account=st.sampled_from(ACCOUNTS), again=st.booleans())
    def account_goes(self, account: str, again: bool) -> None:  # noqa: FBT001 - drawn
        """Delete an account, or make it again."""
        accounts = self.world.kube.accounts
        accounts.pop(account, None)
        if again:
            accounts[account] = self.world.kube.uid()
        self.world.do(lambda: self.world.harm_account(account))

    @rule(account=st.sampled_from(ACCOUNTS), what=st.sampled_from(["strong", "reading"]))
    def bind_or_unbind(self, account: str, what: str) -> None:
        """Bind an account to rights that it must not have, or take them away."""
        which: set[str] = getattr(self.world.kube, what)
        self.world.do(lambda: which.symmetric_difference_update({account}))

    @rule()
    def opt_in_or_out(self) -> None:
        """Opt the namespace in, or out."""
        self.world.do(lambda: self.world.kube.opt(into=not self.world.kube.opted_in))

    @rule()
    def take_or_give_rights(self) -> None:
        """Take the broker's Role away, or give it back."""
        self.world.do(lambda: self.world.kube.permit(forbidden=not self.world.kube.forbidden))

    @precondition(lambda self: self.world.kube.secrets)
    @rule(number=st.integers(0, 40))
    def delete_anchor(self, number: int) -> None:
        """Let somebody delete an anchor."""
        secrets = list(self.world.kube.secrets.values())
        secret = secrets[number % len(secrets)]
        for key in self.world.truth.past:
            self.world.truth.harm(key)
        self.world.taken.add(secret.uid)
        self.world.do(lambda: self.world.kube.remove_secret(secret.name))

    # Vault's other users

    @rule(client_id=CLIENTS, kind=st.sampled_from(list(RENEW_BEFORE)), how=st.sampled_from(MEDDLING))
    def meddle(self, client_id: ClientId, kind: str, how: str) -> None:
        """Let somebody else change what is at a copy's path."""
        if how == "remove" or not (path_of(client_id, kind) in self.world.strangers or self._claimed(client_id, kind)):
            self.world.do(lambda: self.world.meddle(path_of(client_id, kind), how))

    # What breaks

    @rule(faults=FAULTS)
    def fault(self, faults: list[tuple[str, int, How]]) -> None:
        """Let coming calls go wrong."""
        self.fault_all(faults)

    @rule(who=st.sampled_from(["kube", "vault", "kube from a", "vault from a", "kube from b", "vault from b"]))
    def cut_or_join(self, who: str) -> None:
        """Put a neighbour out of reach, of all or of one, or bring it back."""
        self.world.do(lambda: self.world.faults.away.symmetric_difference_update({who}))

    @rule(name=REPLICAS, what=st.sampled_from(["cut", "lag"]))
    def blind_or_see(self, name: str, what: str) -> None:
        """Let a replica's watches be half open, or late, or as they should be."""
        sight = self.world.replicas[name].sight
        if what == "cut":
            sight.cut = not sight.cut
        else:
            sight.lag = LAG_SECONDS - sight.lag

    @rule(name=REPLICAS, kill=st.booleans(), wait=st.sampled_from([0.0, 1.0, 40.0]), start=st.booleans())
    def end(self, name: str, kill: bool, wait: float, start: bool) -> None:  # noqa: FBT001 - drawn
        """Stop a replica, or kill it; start another in its place, soon or later."""
        it = self.world.replicas[name]
        if it.running:
            self.world.do(it.die if kill else it.stop)
            self.world.forgive(it)
        self.world.pass_(wait)
        if start:
            self._start(name)

    def fault_all(self, faults: list[tuple[str, int, How]]) -> None:
        """Arm faults."""
        for one in faults:
            self.world.faults.arm(*one)

    def _comes_to_rest(self) -> None:
        world = self.world
        self._let_all_work()
        world.pass_(ENDED_WITHIN)
        _require(ended_in_time(world))
        world.pass_(CALM)
        _require(at_rest(world))
        for name in NAMES:
            self._is_served_by(name)

    def _let_all_work(self) -> None:
        world = self.world
        world.faults.clear()
        world.kube.permit(forbidden=False)
        for name in NAMES:
            self._start(name)
        for it in world.replicas.values():
            it.sight.cut, it.sight.lag = False, 0.0

    def _is_served_by(self, name: str) -> None:
        """Ask for everything, and get what is in order."""
        world = self.world
        for it in list(world.kube.resources.values()):
            for one in it.client.grants:
                task = world.ask(name, it.client.id, one.name)
                assert task is not None
                world.pass_(1)
                now = world.replicas[name].clock.now()
                wanted = world.truth.in_order(it, one) and standing(it.client, now) is None
                assert (task.result() == "issued") is wanted, f"{name}: {key_of(it.client, one)} gets {task.result()}"

    def _start(self, name: str) -> None:
        if name not in self.world.replicas or not self.world.replicas[name].running:
            if name in self.world.replicas:
                self.world.forgive(self.world.replicas[name])
            self.world.start(name)

    def _client(self, client_id: ClientId) -> Client | None:
        it = self.world.kube.resources.get(client_id)
        return it.client if it is not None and not it.deleting else None

    def _change(self, client: Client | None, **changes: object) -> None:
        if client is not None:
            changed = replace(client, generation=client.generation + 1, **changes)  # type: ignore[arg-type]
            valid = self.world.kube.resources[client.id].valid
            self.world.do(lambda: self.world.kube.apply(changed, valid=valid))

    def _revocable(self) -> Iterator[Held]:
        return (one for one in self.world.held if not one.id.startswith("jti") and not one.revoked)

    def _claimed(self, client_id: ClientId, kind: str) -> bool:
        """Tell whether a broker may be between its look at a path and its claim: what comes then counts as its own."""
        locks = [key for it in self.world.replicas.values() for key in it.keeper._locks]
        return any((key.client, key.grant) == (client_id, kind) for key in locks)


def _require(found: Iterator[str]) -> None:
    wrong = list(found)
    assert not wrong, "\n".join(wrong)

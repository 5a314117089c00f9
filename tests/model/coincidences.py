"""What comes together too rarely by chance: a change while a call is under way, a crash and a change, a late repair."""

import math
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from broker.model.client import ClientId
from tests.model.clients import ACCOUNTS, RENEW_BEFORE, WEB
from tests.model.machine import CLIENTS, KINDS, NAMES, SHAPES, BrokerMachine, Shapes
from tests.model.wire import How

CHANGES = ("end", "suspend", "register", "delete", "orphan", "opt out", "revoke", "account")
CHANGE = st.sampled_from(CHANGES)
BETWEEN = (
    "anchors.find",
    "anchors.ensure",
    "minter.mint",
    "minter.rehearse",
    "access.rules",
    "finalizers.put",
    "finalizers.release",
    "statuses.write",
)
IN_VAULT = ("vault.inspect", "vault.write", "vault.label")
ENDING = ("anchors.delete", "anchors.delete", "finalizers.release", "statuses.write", "vault.remove", "audit.revoked")
DEADLY = (How.CRASH_BEFORE, How.CRASH_AFTER)
OUTAGES = (How.OUTAGE_BEFORE, How.OUTAGE_AFTER)
STEP = 240.0


class Coincidences(BrokerMachine):
    """The same histories, in which more meets."""

    @rule(shapes=SHAPES)
    def mend(self, shapes: Shapes) -> None:
        """Let everything be as it should be, so that there is something to break again."""
        world = self.world
        if WEB not in world.kube.resources:
            self.register(WEB, shapes)
        self._let_all_work()
        world.do(self._give_back)
        for it in list(world.kube.resources.values()):
            if not it.deleting:
                self._change(it.client, suspended=False, not_after=None)
        world.pass_(60.0)

    def _give_back(self) -> None:
        kube = self.world.kube
        kube.strong.clear()
        kube.reading.clear()
        kube.opt(into=True)
        for account in ACCOUNTS:
            if account not in kube.accounts:
                kube.accounts[account] = kube.uid()

    @rule(client_id=CLIENTS, change=st.sampled_from(["nothing", "nothing", "account", *CHANGES]), shapes=SHAPES)
    def all_ask(self, client_id: ClientId, change: str, shapes: Shapes) -> None:
        """Ask every replica for all that there is, perhaps right after a change."""
        self._do(change, client_id, shapes)
        for it in list(self.world.kube.resources.values()):
            for one in it.client.grants:
                for name in NAMES:
                    self.world.ask(name, it.client.id, one.name)
        self.world.pass_(1.0)

    @rule(
        client_id=CLIENTS,
        changes=st.tuples(st.sampled_from(["register", *CHANGES]), st.sampled_from(["register", *CHANGES])),
        shapes=st.tuples(SHAPES, SHAPES),
        port=st.sampled_from([*BETWEEN, *IN_VAULT, "anchors.ensure"]),
        skip=st.integers(0, 4),
    )
    def change_meanwhile(
        self, client_id: ClientId, changes: tuple[str, str], shapes: tuple[Shapes, Shapes], port: str, skip: int
    ) -> None:
        """Change something, and again while what follows from that is under way."""
        self.world.faults.arm(port, skip, How.SLOW)
        for change, drawn in zip(changes, shapes, strict=True):
            self._do(change, client_id, drawn)
            self.world.pass_(1.0)
        self.world.pass_(5.0)

    @rule(client_id=CLIENTS, kind=st.sampled_from(KINDS), change=CHANGE, shapes=SHAPES, port=st.sampled_from(BETWEEN))
    def change_while_asked(self, client_id: ClientId, kind: str, change: str, shapes: Shapes, port: str) -> None:
        """Change something while requests are under way."""
        self.world.faults.arm(port, 0, How.SLOW)
        for name in NAMES:
            self.world.ask(name, client_id, kind)
            self.world.ask(name, client_id, kind, deliver=True)
        self.world.pass_(1.0)
        self._do(change, client_id, shapes)
        self.world.pass_(5.0)

    @rule(
        client_id=CLIENTS,
        changes=st.tuples(CHANGE, CHANGE),
        shapes=st.tuples(SHAPES, SHAPES),
        port=st.sampled_from(BETWEEN + IN_VAULT + ENDING),
        skip=st.integers(0, 4),
        how=st.sampled_from(DEADLY),
    )
    def change_in_the_dark(
        self,
        client_id: ClientId,
        changes: tuple[str, str],
        shapes: tuple[Shapes, Shapes],
        port: str,
        skip: int,
        how: How,
    ) -> None:
        """Let the leader die of what follows from a change, and then the others; change again before they are back."""
        world = self.world
        world.faults.arm(port, skip, how)
        self._do(changes[0], client_id, shapes[0])
        world.pass_(1.0)
        for name in NAMES:
            if world.replicas[name].running:
                world.do(world.replicas[name].die)
            world.forgive(world.replicas[name])
        self._do(changes[1], client_id, shapes[1])
        world.pass_(1.0)
        for name in NAMES:
            self._start(name)
        world.pass_(40.0)

    @precondition(lambda self: self._copies())
    @rule(
        port=st.sampled_from([*IN_VAULT, "vault.label", "minter.mint", "audit.issued"]),
        how=st.sampled_from([*DEADLY, *OUTAGES, How.LOST, How.LATE]),
        away=st.sampled_from([0.0, 900.0, 900.0]),
    )
    def renewal_fails(self, port: str, how: How, away: float) -> None:
        """Let a renewal be cut short, and nobody be able to mend it for a while."""
        world, hits = self.world, self.world.faults.hits.total()
        world.faults.arm(port, 0, how)
        for _ in range(max(1, math.ceil(self._seconds_to_renewal() / STEP))):
            if world.faults.hits.total() == hits:
                world.pass_(STEP)
        if away:
            world.do(lambda: world.faults.away.add("vault"))
            world.pass_(away)
        world.do(lambda: world.faults.away.difference_update({"vault", "kube"}))
        for name in NAMES:
            self._start(name)
        world.pass_(100.0)
        world.pass_(1900.0)

    def _copies(self) -> list[tuple[str, str]]:
        """Return the tokens that readers of Vault get, and that work, each with its grant's name."""
        found = [(self.world.current(path), path[-1]) for path in self.world.vault.entries]
        return [(one, grant) for one, grant in found if one is not None and self.world.kube.accepts(one)]

    def _seconds_to_renewal(self) -> float:
        """Return in how many seconds the first of them has to be replaced at the latest."""
        kube = self.world.kube
        ends = [(kube.tokens[one].expires_at - kube.now(), RENEW_BEFORE[grant]) for one, grant in self._copies()]
        return min(left.total_seconds() - before for left, before in ends)

    def _do(self, what: str, client_id: ClientId, shapes: Shapes) -> None:
        account = shapes[0][1]
        changes: dict[str, Callable[[], None]] = {
            "nothing": lambda: None,
            "end": lambda: self.end_at(client_id, 0.3),
            "suspend": lambda: self.suspend_or_resume(client_id),
            "register": lambda: self.register(client_id, shapes),
            "delete": lambda: self.delete(client_id, orphan=False),
            "orphan": lambda: self.delete(client_id, orphan=True),
            "opt out": self.opt_in_or_out,
            "revoke": lambda: self.revoke_all(client_id, now=True),
            "account": lambda: self.account_goes(account, again=True),
        }
        changes[what]()

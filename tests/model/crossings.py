"""What happens between two steps of one piece of work: a change, an end that comes by itself, an end that fails."""

import math

from hypothesis import strategies as st
from hypothesis.stateful import rule

from broker.model.client import ClientId
from tests.model.clients import ACCOUNTS, RENEW_BEFORE, TTL
from tests.model.coincidences import BETWEEN, CHANGE, DEADLY, STEP, Coincidences
from tests.model.coincidences import IN_VAULT as IN_THE_STORE
from tests.model.machine import CLIENTS, NAMES, SHAPES, Shapes
from tests.model.wire import How

CROSSING = st.sampled_from(
    [
        ("anchors.find root", How.SLOW, True),
        ("anchors.find root", How.SLOW_BACK, False),
        ("anchors.ensure root", How.SLOW, True),
        ("anchors.ensure root", How.SLOW_BACK, True),
    ]
)
"""What is slow about the anchor above versions, and whether it has to be made."""

IN_VAULT = st.sampled_from(list(RENEW_BEFORE))
ACCOUNT = st.sampled_from(ACCOUNTS)
WHOSE = st.sampled_from([*NAMES, *NAMES, "api server"])
AHEAD = st.sampled_from([0.0, 9.0, -9.0, 240.0, -240.0, 3600.0, -3600.0])
CUT = st.sampled_from(["vault", "vault", "kube", "lease", "sight"])
FAILURES = (How.REFUSED, How.LOST, How.TIMEOUT)


class Crossings(Coincidences):
    """The same histories, in which what was decided is not so any more when it is carried out."""

    @rule(client_id=CLIENTS, account=ACCOUNT, kind=IN_VAULT, crossing=CROSSING, change=CHANGE, shapes=SHAPES)
    def change_under_a_copy(
        self, client_id: ClientId, account: str, kind: str, crossing: tuple[str, How, bool], change: str, shapes: Shapes
    ) -> None:
        """Change something while a version is about to be written, whose root may have to be made anew."""
        world, (port, how, gone) = self.world, crossing
        self.mend(((kind, account),))
        self.register(client_id, ((kind, account),))
        world.pass_(5.0)
        world.faults.arm(port, 0, how)
        self.revoke_all(client_id, now=gone)
        world.pass_(2.5)
        self._do(change, client_id, shapes)
        world.pass_(10.0)

    @rule(
        client_id=CLIENTS,
        account=ACCOUNT,
        kind=st.sampled_from(["plain", "reused"]),
        seconds=st.sampled_from([1.5, 2.5, 2.9, 3.5]),
    )
    def end_while_it_waits(self, client_id: ClientId, account: str, kind: str, seconds: float) -> None:
        """Let a registration end by itself while a call is slow, and others wait for their turn."""
        world = self.world
        self.register(client_id, ((kind, account),))
        self.end_at(client_id, None)
        world.pass_(5.0)
        self.end_at(client_id, seconds)
        world.faults.arm("minter.mint", 0, How.SLOW)
        for name in NAMES:
            for _ in range(3):
                world.ask(name, client_id, kind)
        world.pass_(6.0)

    @rule(client_id=CLIENTS, shapes=SHAPES, skip=st.integers(0, 3), how=st.sampled_from(FAILURES), orphan=st.booleans())
    def end_fails(self, client_id: ClientId, shapes: Shapes, skip: int, how: How, orphan: bool) -> None:  # noqa: FBT001 - drawn
        """Delete a TokenClient whose tokens cannot be ended at once."""
        world = self.world
        self.register(client_id, shapes)
        world.pass_(5.0)
        for name in NAMES:
            world.ask(name, client_id, shapes[0][0])
        world.pass_(1.0)
        world.faults.arm("anchors.delete", skip, how)
        self.delete(client_id, orphan)
        world.pass_(20.0)

    @rule(
        client_id=CLIENTS,
        change=CHANGE,
        shapes=SHAPES,
        port=st.sampled_from([*BETWEEN, *IN_THE_STORE, "anchors.find root", "anchors.ensure root", "anchors.delete"]),
        how=st.sampled_from([How.SLOW, How.SLOW_BACK, How.LATE]),
    )
    def lose_the_lead(self, client_id: ClientId, change: str, shapes: Shapes, port: str, how: How) -> None:
        """Let the leader's calls about the Lease fail, until another one leads in the middle of what it does."""
        world = self.world
        leader = next((it for it in world.replicas.values() if it.leading), None)
        if leader is None:
            return
        lost = {f"lease from {leader.name[0]}"}
        world.do(lambda: world.faults.away.update(lost))
        world.pass_(max(0.0, leader.leadership._until - world.loop.time() - 1.5))
        world.faults.arm(port, 0, how)
        self._do(change, client_id, shapes)
        world.pass_(15.0)
        world.do(lambda: world.faults.away.difference_update(lost))
        world.pass_(5.0)

    @rule(
        client_id=CLIENTS,
        account=ACCOUNT,
        kind=IN_VAULT,
        port=st.sampled_from(["vault.remove", "vault.reach_active"]),
        how=st.sampled_from([*FAILURES, *DEADLY, How.SLOW, How.LATE]),
    )
    def what_is_seldom_asked_fails(self, client_id: ClientId, account: str, kind: str, port: str, how: How) -> None:
        """Let a copy be wanted no more, or Vault be back after a while, and what is asked then go wrong."""
        world = self.world
        self.mend(((kind, account),))
        self.register(client_id, ((kind, account),))
        world.pass_(5.0)
        world.faults.arm(port, 0, how)
        if port == "vault.remove":
            self.register(client_id, (("plain", account),))
        else:
            world.do(lambda: world.faults.away.add("vault"))
            world.pass_(60.0)
            world.do(lambda: world.faults.away.discard("vault"))
        world.pass_(20.0)

    @rule(client_id=CLIENTS, kind=IN_VAULT, account=ACCOUNT, cut=CUT, leads=st.booleans(), shapes=SHAPES)
    def one_is_cut_off(
        self,
        client_id: ClientId,
        kind: str,
        account: str,
        cut: str,
        leads: bool,  # noqa: FBT001 - drawn
        shapes: Shapes,
    ) -> None:
        """Let a replica be of no use for as long as a copy lives: the other one has to renew it."""
        world = self.world
        self.mend(shapes)
        self.register(client_id, ((kind, account),))
        world.pass_(60.0)
        one = next((name for name, it in world.replicas.items() if it.leading is leads), NAMES[0])
        sight, away = world.replicas[one].sight, {f"{cut} from {one}"}
        sight.cut = cut == "sight"
        world.do(lambda: world.faults.away.update(away))
        for _ in range(math.ceil(TTL / STEP) + 1):
            world.pass_(STEP)
        sight.cut = False
        world.do(lambda: world.faults.away.difference_update(away))

    @rule(whose=WHOSE, ahead=AHEAD, again=st.booleans())
    def set_clock(self, whose: str, ahead: float, again: bool) -> None:  # noqa: FBT001 - drawn
        """Set the clock of a machine; perhaps all processes are started again there, and know nothing but that one."""
        world = self.world
        world.do(lambda: world.set_clock(whose, ahead))
        for name in NAMES if again else ():
            self.end(name, kill=True, wait=0.0, start=True)
        world.pass_(20.0)

    @rule(client_id=CLIENTS, kind=IN_VAULT, account=ACCOUNT)
    def replace_and_renew(self, client_id: ClientId, kind: str, account: str) -> None:
        """Let a version be replaced early, and the next one in its time, while readers may still hold the first."""
        world = self.world
        self.register(client_id, ((kind, account),))
        world.pass_(5.0)
        for name in NAMES:
            if world.replicas[name].leading:
                world.ask(name, client_id, kind, deliver=True)
        world.pass_(30.0)
        for _ in range(math.ceil(RENEW_BEFORE[kind] / STEP) + 2):
            world.pass_(STEP)

"""What was ended is counted and written down once, with its reason; what could not be, is counted by client."""

from dataclasses import dataclass, field

import pytest

from broker.errors import BrokerError, Fault, Reason
from broker.model.anchor import AnchorId, grant_anchor, trial_anchor, vault_anchor
from broker.model.audit_record import Origin, Revoked
from broker.model.client import ClientId
from broker.model.former_grants import former_grant
from broker.services.anchored import AnchoredGrants
from broker.services.ending import Ender, NotEnded, require_ended
from tests.support.rotation import KEY, FakeCluster, HandClock, NoAudit, Power, client, grant

AWAY = BrokerError(Reason.KUBERNETES_UNAVAILABLE, "away")
OTHER = ClientId(KEY.client.namespace, "other")
GRANT = grant()


@dataclass
class Told(NoAudit):
    """Implements AuditLog and EndingMetrics: keeps what it is told."""

    records: list[Revoked] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    orphaned: list[int] = field(default_factory=list)
    """The sum over all clients, after each change."""
    _grants: dict[ClientId, int] = field(default_factory=dict)

    def revoked(self, record: Revoked) -> None:
        """Keep a record."""
        self.records.append(record)

    def ended(self, why: str) -> None:
        """Keep a reason."""
        self.reasons.append(why)

    def orphans(self, client: ClientId, grants: int) -> None:
        """Keep what the gauge is set to."""
        self._grants[client] = grants
        self.orphaned.append(sum(self._grants.values()))

    def no_orphans(self) -> None:
        """Keep that it is set to none."""
        self._grants.clear()
        self.orphaned.append(0)


class Bench:
    """An ender among fakes."""

    def __init__(self) -> None:
        self.cluster, self.told, self.clock = FakeCluster(Power(), HandClock()), Told(), HandClock()
        self.ender = Ender(
            self.cluster,
            self.told,
            self.clock,
            self.told,
            lambda: "request",
            anchored=AnchoredGrants(),
            leader=self.cluster,
        )

    async def end(self, client_id: ClientId = KEY.client) -> list[NotEnded]:
        """End the tokens of a grant."""
        return await self.ender.end(client_id, "uid-1", [GRANT], "client_suspended")

    async def end_in_vain(self, client_id: ClientId = KEY.client) -> None:
        """Try it where the API server is away."""
        self.cluster.delete_fault = AWAY
        assert await self.end(client_id) == [NotEnded("uid-1", former_grant(GRANT), Fault.of(AWAY))]
        self.cluster.delete_fault = None


@pytest.mark.parametrize(
    "which", [grant_anchor("uid-1", GRANT), vault_anchor("uid-1", GRANT)], ids=["handed out", "in Vault"]
)
async def test_tokens_that_ended_are_written_down_once(which: AnchorId) -> None:
    """Those that were handed out and those in Vault; when it is done again there is nothing to say."""
    bench = Bench()
    await bench.cluster.ensure(client(), which)
    for _ in range(2):
        await bench.end()

    record = Revoked(bench.clock.now(), Origin("request"), KEY.client, GRANT.name, "", "client_suspended")
    assert bench.told.records == [record]
    assert bench.told.reasons == ["client_suspended"]
    assert bench.cluster.anchors == {}


@pytest.mark.parametrize("which", [grant_anchor("uid-1", GRANT), vault_anchor("uid-1", GRANT)])
async def test_an_anchor_that_was_made_again_since_it_was_known_is_ended_all_the_same(which: AnchorId) -> None:
    """By its name, which no other grant's has: whoever named its UID would let the tokens of the new one live."""
    bench = Bench()
    before = await bench.cluster.ensure(client(), which)
    bench.ender._anchored.note(KEY.client, "uid-1", GRANT)
    await bench.cluster.delete(KEY.client.namespace, which.name)
    again = await bench.cluster.ensure(client(), which)
    await bench.end()

    assert before.uid != again.uid
    assert bench.cluster.anchors == {}


async def test_a_trial_alone_was_no_token() -> None:
    """Nobody had one: its anchor goes, and nothing is written down."""
    bench = Bench()
    await bench.cluster.ensure(client(), trial_anchor("uid-1", GRANT))
    await bench.end()

    assert (bench.told.records, bench.told.reasons, bench.cluster.anchors) == ([], [], {})


async def test_one_client_is_forgotten_and_others_are_counted_on() -> None:
    """Each by itself, however it ends: another one's tokens still live."""
    bench = Bench()
    for client_id in (KEY.client, OTHER):
        await bench.end_in_vain(client_id)
    bench.ender.forget(OTHER)
    await bench.end_in_vain(OTHER)
    await bench.ender.pay(OTHER)
    await bench.end_in_vain(OTHER)
    await bench.end(OTHER)
    await bench.end()

    assert bench.told.orphaned == [1, 2, 1, 2, 1, 2, 1, 0]
    assert not bench.ender._failed, "whoever owes nothing takes no memory"


async def test_what_was_tried_in_vain_is_counted_once() -> None:
    """Again and again in vain is still one grant; a gauge that does not change is not set."""
    bench = Bench()
    for _ in range(3):
        await bench.end_in_vain()
    bench.ender.stand_back()

    assert bench.told.orphaned == [1, 0]


async def test_what_may_pass_is_told_before_what_somebody_has_to_mend() -> None:
    """A lack of rights would let a TokenClient go; the other failure must not hide behind it."""
    forbidden = NotEnded("uid-1", former_grant(GRANT), Fault(Reason.BROKER_NOT_AUTHORIZED, "no Role"))
    away = NotEnded("uid-1", former_grant(GRANT), Fault.of(AWAY))
    require_ended([])
    with pytest.raises(BrokerError, match="away"):
        require_ended([forbidden, away])
    with pytest.raises(BrokerError, match="no Role"):
        require_ended([forbidden])

"""What it costs the API server that the broker looks at a grant: counted, on a real one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.config import load
from broker.kube.access import KubeAccess
from broker.kube.anchors import KubeAnchors
from broker.kube.answer import Answer
from broker.kube.canary import KubeCanary
from broker.kube.session import KubeSession
from broker.kube.token_requests import TokenRequests
from broker.metrics.counted import Metrics
from broker.model.decision import Rules
from broker.services.anchored import AnchoredGrants
from broker.services.courtesy import Turns
from broker.services.ending import Ender
from broker.services.grant_book import GrantBook
from broker.services.prepare import Hands, Preparer
from broker.services.rush import Rush
from broker.services.token_anchors import TokenAnchors
from broker.services.verify import Verifier
from tests.support.accounts import Account, rule
from tests.support.broker import CONFIG
from tests.support.gates import a_gate
from tests.support.inside import AUDIENCE, read_client
from tests.support.rotation import NoAudit
from tests.verification.conftest import Limited


class Counting(KubeSession):
    """A session that notes its calls."""

    calls: list[str]

    async def call(self, method: str, path: str, *args: Any, **options: Any) -> Answer:
        """Make a call, and note it."""
        self.calls.append(f"{method} {path}")
        return await super().call(method, path, *args, **options)


class Leading:
    """Implements Leader."""

    leading = True


@asynccontextmanager
async def counting(limited: Limited) -> AsyncIterator[Counting]:
    """Open a session with the broker's own credential."""
    kube = load(limited.broker.folder / CONFIG).kubernetes
    session = Counting(kube.server, kube.ca_file, kube.token_file, kube.timeout_seconds)
    session.calls = []
    async with session:
        yield session


@pytest.mark.parametrize(
    ("name", "grant", "first", "later"),
    [
        ("plain", {}, 6, 3),
        ("expecting", {"expect": {"allow": ["get pods"], "deny": ["get secrets"]}}, 8, 3),
        ("audience", {"audiences": ["https://one"]}, 7, 4),
    ],
)
async def test_calls_for_one_look(name: str, grant: dict[str, Any], first: int, later: int, limited: Limited) -> None:
    """Nothing more is asked where the rules are complete; what the cluster serves is read once for all."""
    account = await Account.create(await limited.tenant(f"cost-{name}"), "reader", rule("get", "pods"))
    await account.client(**grant)
    await account.until_condition("Ready", "True", "Ready")
    client = await read_client(account.tenant, "reader")
    async with counting(limited) as session:
        rules, clock, anchors = Rules("tokenbroker", AUDIENCE), SystemClock(), KubeAnchors(session)
        anchored = AnchoredGrants()
        hands = Hands(
            turns=Turns(a_gate(clock)),
            anchors=anchors,
            minter=TokenRequests(session, Metrics()),
            access=Verifier(KubeAccess(session), rules, clock, Rush(clock)),
            ender=Ender(anchors, NoAudit(), clock, Metrics(), lambda: "request", anchored=anchored, leader=Leading()),
            anchored=anchored,
            tokens=TokenAnchors(anchors, clock),
            leader=Leading(),
        )
        preparer = Preparer(hands, GrantBook(), rules)
        counts = []
        for _ in range(2):
            session.calls.clear()
            await preparer.prepare(client, client.grants[0])
            counts.append(len(session.calls))
    print(f"\none look at a grant ({name}): {counts[0]} calls, then {counts[1]}: {session.calls}")  # noqa: T201

    assert counts == [first, later]


async def test_calls_of_the_canary(limited: Limited) -> None:
    """One for each policy, each minute."""
    async with counting(limited) as session:
        assert await KubeCanary(session, "tokenbroker").missing() == ()

    assert len(session.calls) == 2

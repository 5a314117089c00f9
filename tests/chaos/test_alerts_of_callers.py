"""A real Prometheus with the rules that operators get says whom callers harm, and whom the broker cannot serve."""

import asyncio
import resource
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import pytest
import pytest_asyncio

from broker.identity import secret
from tests.monitoring.rules import RULES
from tests.support.alerted import Expected, Fired, assert_told, found, remove, until_fired
from tests.support.broker import BrokerProcess, Registered, Tenant, token_client
from tests.support.chaos.process import limited, listen
from tests.support.fault_proxy import HoldingProxy
from tests.support.federated import AWAY
from tests.support.issuer import Issuer
from tests.support.lab import Lab
from tests.support.volley import asked, volley
from tests.support.watching import Watching, hurried

NAME = "rush"
BUGGY = ("tests.support.chaos.launch", "--bug")
"""A broker whose GET /v1/grants has a bug: only that makes errors of its own."""
QUEUE = {"concurrency": 2, "waiting": 20}
ROOM = sum(QUEUE.values())
RATE = {"perMinute": 60, "burst": 2}
READER = {"serviceAccount": {"name": "reader"}}
TOO_LONG = "24h"
"""A client's tokens live for an hour at most where it says nothing else."""

WELL_SECONDS = 14.0
"""Longer than any of the alerts waits here before it fires."""
PACE_SECONDS = 0.3
STORM, HELD_SECONDS = 60, 3.0
"""Requests at once, and for how long the API server keeps back its answers to those that may wait."""
SQUALL = 30
"""A few more at once than there is room for, while the API server is slow for a moment only."""
GUESSES, MORE_GUESSES = 400, 20
"""More than one a second over the five minutes that the rule looks at; and how the guesser goes on."""

MISUSE: Expected = {
    "TokenbrokerClientRefused": (
        {"namespace": NAME, "client": "stray", "reason": "ttl_out_of_range"},
        "rush/stray asks for tokens and gets none: ttl_out_of_range.",
    ),
    "TokenbrokerRateLimited": (
        {"namespace": NAME, "client": "greedy", "reason": "rate_limited"},
        "rush/greedy is turned away by its limit: rate_limited,",
    ),
    "TokenbrokerAuthenticationFailures": (
        {"reason": "wrong_secret"},
        "callers a second do not prove who they are: wrong_secret.",
    ),
    "TokenbrokerIssuerKeysMissing": ({"issuer": AWAY}, f"The keys of the issuer {AWAY} cannot be fetched."),
    "TokenbrokerInternalErrors": ({"job": "tokenbroker"}, "errors of its own within 10 minutes."),
}
"""What is to fire when a client asks for what it may not have, another one too often, somebody guesses a secret, a
pipeline comes with a JWT of an issuer whom nobody can reach, and a caller meets a bug."""

OVERLOAD: Expected = {
    "TokenbrokerOverloaded": (
        {"reason": "queue_full"},
        "requests a second are refused early for overload: queue_full.",
    ),
    "TokenbrokerSlow": ({"job": "tokenbroker"}, "One request for a token in a hundred takes "),
}
"""What is to fire when more ask than may wait while the API server is slow."""

UNRECORDED: Expected = {
    "TokenbrokerAuditFailing": ({"pod": "tokenbroker-0"}, "cannot write its audit log, and issues nothing."),
}
"""What is to fire when the audit log's disk is full."""

EXPECTED: Expected = MISUSE | OVERLOAD | UNRECORDED


@dataclass(frozen=True, slots=True)
class Rush:
    """A broker, its way to the API server, what watches it, and those who call it."""

    broker: BrokerProcess
    proxy: HoldingProxy
    watching: Watching
    issuer: Issuer
    clients: dict[str, Registered]
    seen: set[int] = field(default_factory=set)
    """The statuses that callers got while all was well."""

    async def ask(self, name: str, **body: str) -> int:
        """Ask for a token with a secret, and return the status."""
        return (await self.broker.call("POST", "/v1/tokens", body, auth=self.clients[name].auth)).status

    async def ask_with_jwt(self, **claims: str) -> int:
        """Ask for a token as a pipeline does, and return the status."""
        headers = {"Authorization": f"Bearer {self.issuer.token(self.broker.url, **claims)}"}
        return (await self.broker.call("POST", "/v1/tokens", {"client": f"{NAME}/ci"}, headers=headers)).status

    async def guess(self, count: int) -> set[int]:
        """Try so many wrong secrets, and return the statuses."""
        guesser = Registered(self.clients["web"].id, secret.generate().reveal())
        return {answer.status for answer in (await volley(self.broker, guesser, count)).answers}

    async def use(self) -> None:
        """Call as good clients do; but one that got a token before asks for too much, and another one too soon."""
        self.seen.update([await self.ask("web"), await self.ask("greedy"), await self.ask_with_jwt()])
        self.seen.update([await self.ask("once", ttl=TOO_LONG), *await self.guess(1)])
        await asyncio.sleep(PACE_SECONDS)

    async def misuse(self) -> None:
        """Call as nobody should."""
        for _ in range(10):
            await self.ask("greedy")
        await self.ask("stray", ttl=TOO_LONG)
        await self.ask_with_jwt(iss=AWAY)
        await self.guess(MORE_GUESSES)
        await self.broker.call("GET", "/v1/grants", auth=self.clients["web"].auth)
        await asyncio.sleep(PACE_SECONDS)

    async def storm(self, count: int, seconds: float) -> set[int]:
        """Ask so often at once, let the API server answer so long after nobody else may wait, and return the statuses.

        It is slow for that long, and not away: its answers do come.
        """
        self.proxy.open.clear()
        async with asked(self.broker, self.clients["web"], count) as made:
            await made.until(count - ROOM)
            await asyncio.sleep(seconds)
            self.proxy.open.set()
            await made.until(count)
        return {answer.status for answer in made.answers}


async def _register(lab: Lab, broker: BrokerProcess, issuer: Issuer) -> dict[str, Registered]:
    """Register the clients, and wait until they are served."""
    tenant = await Tenant.create(lab.cluster, NAME)
    await tenant.account("reader")
    clients = {
        "web": await tenant.client("web", READER),
        "once": await tenant.client("once", READER),
        "stray": await tenant.client("stray", READER),
        "greedy": await tenant.client("greedy", READER, rate=RATE),
    }
    proof = {"oidc": {"issuer": issuer.url, "claims": {"repository_id": ["123456"]}}}
    ci = token_client(NAME, "ci", authentication=[proof], grants=[READER])
    status, answer = await lab.cluster.request("POST", tenant.path, ci)
    assert status == 201, answer.get("message")
    for name in (*clients, "ci"):
        await broker.until_ready(f"{NAME}/{name}")
    return clients


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rush(harmed: Lab) -> AsyncIterator[Rush]:
    """Start a broker with five clients, and a Prometheus that watches it."""
    folder = harmed.folder / f"{NAME}-proxy"
    folder.mkdir()
    async with (
        Issuer.start(harmed.folder / f"{NAME}-issuer") as issuer,
        HoldingProxy.start(harmed.cluster, folder) as proxy,
    ):
        kubernetes = {
            "server": proxy.url,
            "ca_file": str(proxy.ca_file),
            "token_file": str(harmed.folder / NAME / "token"),
        }
        oidc = {"issuers": [issuer.config(), {"issuer": AWAY}]}
        sections = {"kubernetes": kubernetes, "oidc": oidc, "queue": QUEUE, "listen": listen()}
        async with BrokerProcess.start(harmed, NAME, program=BUGGY, **sections) as broker:
            clients = await _register(harmed, broker, issuer)
            async with Watching.start(harmed, broker, hurried(RULES)) as watching:
                yield Rush(broker, proxy, watching, issuer, clients)
            await remove(harmed.cluster, NAME)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def well(rush: Rush) -> Fired:
    """Let callers call for a while, and return what fires."""
    loop = asyncio.get_running_loop()
    until_then = loop.time() + WELL_SECONDS
    rush.seen.update([await rush.ask("once"), *await rush.storm(SQUALL, 0.0)])
    while loop.time() < until_then:
        await rush.use()
    return await rush.watching.firing()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def misuse(rush: Rush, well: Fired) -> Fired:
    """Let callers misuse the broker, and return what fires."""
    del well  # which comes first
    await rush.guess(GUESSES)
    return await until_fired(rush.watching, MISUSE, rush.misuse)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def overload(rush: Rush, misuse: Fired) -> Fired:
    """Let more ask than can be served, and return what fires."""
    assert misuse
    return await until_fired(rush.watching, OVERLOAD, partial(rush.storm, STORM, HELD_SECONDS))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def unrecorded(rush: Rush, overload: Fired) -> Fired:
    """Let the audit log and the log grow no further (EFBIG, as with ENOSPC), and return what fires."""
    assert overload
    with limited(rush.broker, resource.RLIMIT_FSIZE, rush.broker.audit_file.stat().st_size):
        return await until_fired(rush.watching, UNRECORDED, partial(rush.ask, "web"))


async def test_nothing_fires_while_all_is_well(rush: Rush, well: Fired) -> None:
    """With callers who err a little: too long a life, a wrong secret, a request too soon, a few too many at once."""
    assert rush.seen == {200, 401, 422, 429, 503}
    assert well == []


@pytest.mark.parametrize("alert", MISUSE)
async def test_what_callers_do_is_told(alert: str, misuse: Fired) -> None:
    """By an alert that names the client, the issuer or the reason, and the runbook."""
    assert_told(misuse, alert, *MISUSE[alert])


async def test_guesses_that_are_turned_away_are_told_too(misuse: Fired) -> None:
    """Those that got no answer but 429 are the larger part of them."""
    alert = "TokenbrokerAuthenticationFailures"
    assert_told(misuse, alert, {"reason": "too_many_proofs"}, "callers a second do not prove who they are")


@pytest.mark.parametrize(
    "alert", ["TokenbrokerClientRefused", "TokenbrokerRateLimited", "TokenbrokerIssuerKeysMissing"]
)
async def test_nobody_else_is_blamed(alert: str, misuse: Fired) -> None:
    """Neither a client that got some of what it asked for, nor the issuer whose keys are there."""
    assert len(found(misuse, alert, {})) == 1


@pytest.mark.parametrize("alert", OVERLOAD)
async def test_what_cannot_be_served_in_time_is_told(alert: str, overload: Fired) -> None:
    """By an alert that names the reason and the runbook."""
    assert_told(overload, alert, *OVERLOAD[alert])


@pytest.mark.parametrize("alert", UNRECORDED)
async def test_what_cannot_be_written_down_is_told(alert: str, unrecorded: Fired) -> None:
    """By an alert that names the replica and the runbook."""
    assert_told(unrecorded, alert, *UNRECORDED[alert])

"""Callers who are nobody: names with tricks, doubled headers, guesses, and those who were somebody once."""

import base64
import gc
import tracemalloc
from dataclasses import dataclass

import pytest

from broker.errors import BrokerError
from broker.identity import secret
from broker.services.failure_limit import BURST, MAX_ENTRIES, SECONDS_EACH, FailureLimit
from tests.support.broker import BrokerProcess, Reply, Tenant, basic
from tests.support.federated import Federated

WRONG = secret.generate().reveal()

LONG = 10_240

TRICKS = {
    "path": "shop/../../kube-system/admin",
    "dots": "../..",
    "percent": "shop%2f..%2fadmin",
    "double slash": "shop//reporter",
    "absolute": "/etc/passwd",
    "nul": "shop/reporter\x00",
    "line end": "shop/reporter\r\nX-Admin: 1",
    "Cyrillic look-alike": "sh\u043ep/reporter",
    "fullwidth look-alike": "\uff53hop/reporter",
    "combining": "sho\u0301p/reporter",
    "right to left": "\u202eshop/reporter",
    "capitals": "SHOP/reporter",
    "10 kB": "a" * LONG,
    "10 kB of a name": "shop/" + "a" * LONG,
    "no name": "shop/",
    "no namespace": "/reporter",
    "nothing": "",
}


@pytest.mark.parametrize("name", TRICKS.values(), ids=TRICKS.keys())
async def test_client_id_with_tricks(federated: Federated, name: str) -> None:
    """Names with path tricks, look-alikes and 10 kB are strangers', whichever way they come."""
    form = {"grant_type": "client_credentials", "client_id": name, "client_secret": WRONG}
    bearer = await federated.named(name)
    posted = await federated.form(form)
    headed = await federated.broker.call("POST", "/v1/tokens", {}, headers={"Authorization": encoded(name, WRONG)})

    refused = (401, "invalid_client")
    no_request = (400, "invalid_request")  # headers of 10 kB, and a parameter without a value, get no further
    assert (bearer.status, bearer.body["code"]) == refused
    assert (posted.status, posted.body["code"]) == (refused if name else no_request)
    assert (headed.status, headed.body["code"]) == (refused if len(name) < LONG else no_request)


async def test_strangers_names_are_all_alike(federated: Federated) -> None:
    """The same words for each, so that nothing is learned from them."""
    details = {(await federated.named(name)).body["detail"] for name in (*TRICKS.values(), "federated/nobody")}

    assert len(details) == 1


def encoded(user: str, password: str) -> str:
    """Return an Authorization header for texts beyond ASCII, too."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("second", ["Basic", "Bearer"])
async def test_two_authorization_headers(broker: BrokerProcess, tenant: Tenant, second: str) -> None:
    """Programs disagree about which of two counts, so neither does: not even where both are right."""
    client = await tenant.ready_client("caller")
    right = basic(*client.auth)
    other = right if second == "Basic" else "Bearer x.y.z"
    for headers in ([right, other], [other, right]):
        status = await broker.raw_status("POST", "/v1/tokens", [("Authorization", value) for value in headers])
        assert status == 401
    assert await broker.raw_status("POST", "/v1/tokens", [("Authorization", right)]) == 200


async def test_basic_with_a_nul(broker: BrokerProcess, tenant: Tenant) -> None:
    """A NUL ends texts in some languages; here it belongs to the text."""
    client = await tenant.ready_client("caller")
    user, right = client.auth
    pairs = [(f"{user}\0", right), (user, f"{right}\0"), (user, f"{right}\0x"), (f"{user}\0x", right), ("\0", "\0")]

    for pair in pairs:
        reply = await broker.call("POST", "/v1/tokens", {}, headers={"Authorization": encoded(*pair)})
        assert (reply.status, reply.body["code"]) == (401, "invalid_client")


async def test_secret_of_a_suspended_client(broker: BrokerProcess, tenant: Tenant) -> None:
    """The right secret is told that the client is suspended, a wrong one no more than ever."""
    client = await tenant.ready_client("caller")
    await tenant.patch("caller", {"suspend": True})
    await tenant.until_reason("caller", "Suspended")
    right = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
    wrong = await broker.call("POST", "/v1/tokens", {}, auth=(client.id, WRONG))

    assert (right.status, right.body["code"]) == (403, "client_suspended")
    assert (wrong.status, wrong.body["code"]) == (401, "invalid_client")


async def test_guesses_are_limited_and_nobody_is_locked_out(broker: BrokerProcess, tenant: Tenant) -> None:
    """After a burst of wrong secrets the answer is 429 with Retry-After, and the right one goes through at once."""
    client = await tenant.ready_client("caller")
    replies = [await broker.call("POST", "/v1/tokens", {}, auth=(client.id, WRONG)) for _ in range(BURST + 5)]
    right = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
    after = await broker.call("POST", "/v1/tokens", {}, auth=(client.id, WRONG))

    assert [reply.status for reply in replies[:BURST]] == [401] * BURST
    assert {reply.status for reply in replies[BURST + 1 :]} == {429}
    assert 1 <= int(replies[-1].headers["Retry-After"]) <= BURST * SECONDS_EACH
    assert replies[-1].body["code"] == "too_many_proofs"
    assert (right.status, after.status) == (200, 429)


async def test_basic_then_form(federated: Federated) -> None:
    """Programs that try a wrong secret both ways (Go's x/oauth2) are told what is wrong, not that they are many."""
    form = {"grant_type": "client_credentials", "client_id": "federated/ci", "client_secret": WRONG}
    pair, statuses = (form["client_id"], WRONG), set()
    for _ in range(BURST // 2):
        address = {"X-Forwarded-For": "192.0.2.77"}
        statuses.add((await federated.form({"grant_type": "client_credentials"}, auth=pair, headers=address)).status)
        statuses.add((await federated.form(form, headers=address)).status)

    assert statuses == {401}


async def test_the_address_is_the_trusted_proxys_word(federated: Federated) -> None:
    """What a caller writes in front of what our proxy adds does not make it somebody else."""

    async def wrong(forwarded: str) -> Reply:
        form = {"grant_type": "client_credentials", "client_id": "federated/forwarded", "client_secret": WRONG}
        return await federated.form(form, headers={"X-Forwarded-For": forwarded})

    statuses = [(await wrong(f"198.51.100.{number}, 192.0.2.88")).status for number in range(BURST + 3)]
    assert statuses[-1] == 429
    assert (await wrong("192.0.2.89")).status == 401


@dataclass
class Standing:
    """A clock that stands still."""

    seconds: float = 0.0

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.seconds


def test_a_million_made_up_ids() -> None:
    """Memory is bounded, however many names are made up, and a pair that failed lately is still known."""
    limit = FailureLimit(Standing())  # type: ignore[arg-type] # it asks for nothing else
    for number in range(MAX_ENTRIES):
        limit.failed(f"shop/{number}", "192.0.2.1")
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1_000_000):
        limit.failed(f"made-up/{number}", "192.0.2.1")
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert grown < 2_000_000
    for _ in range(BURST):
        limit.failed("shop/guessed", "192.0.2.1")
    with pytest.raises(BrokerError, match="too_many_proofs"):
        limit.failed("shop/guessed", "192.0.2.1")


def test_a_failure_counts_for_a_while() -> None:
    """The bucket leaks: after its time one more is answered as such, and Retry-After says when."""
    clock = Standing()
    limit = FailureLimit(clock)  # type: ignore[arg-type] # it asks for nothing else
    for _ in range(BURST):
        limit.failed("shop/guessed", "192.0.2.1")
    with pytest.raises(BrokerError) as caught:
        limit.failed("shop/guessed", "192.0.2.1")
    limit.failed("shop/guessed", "192.0.2.2")
    limit.failed("shop/other", "192.0.2.1")
    assert caught.value.retry_after is not None
    clock.seconds += caught.value.retry_after

    limit.failed("shop/guessed", "192.0.2.1")
    with pytest.raises(BrokerError, match="too_many_proofs"):
        limit.failed("shop/guessed", "192.0.2.1")

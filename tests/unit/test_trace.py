"""What of traceparent is believed, and how long it counts."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from broker.http.problems import guarded
from broker.model.trace import TraceContext
from broker.tracing import current, exemplar, following, noted
from tests.support.malformed import Uncounted

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "header",
    [GOOD, f"01-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01-what-comes-later", f"cc-{TRACE}-{PARENT}-01-"],
)
def test_a_header_by_the_standard_is_passed_on_as_version_0(header: str) -> None:
    """Later versions too, without what they add."""
    trace = TraceContext.parse(header)

    assert trace == TraceContext(TRACE, PARENT, "01")
    assert trace.header() == GOOD


@pytest.mark.parametrize(
    "header",
    {
        "empty": "",
        "upper case": GOOD.upper(),
        "a version that must not be": f"ff-{TRACE}-{PARENT}-01",
        "no trace": f"00-{'0' * 32}-{PARENT}-01",
        "no parent": f"00-{TRACE}-{'0' * 16}-01",
        "more than version 0 has": f"{GOOD}-more",
        "something behind it": f"cc-{TRACE}-{PARENT}-01.more",
        "too short": GOOD[:-1],
        "too long": f"cc-{TRACE}-{PARENT}-01-{'x' * 512}",
        "a line end": f"{GOOD}\n",
        "another header": f"{GOOD}\r\nX-Vault-Token: s.stolen",
        "spaces": f" {GOOD}",
        "no digits": f"00-{'g' * 32}-{PARENT}-01",
        "digits of another alphabet": "00-" + "\u0661" * 32 + f"-{PARENT}-01",
    }.values(),
)
def test_anything_else_is_as_if_it_was_not_there(header: str) -> None:
    """So nothing that a caller makes up gets into logs, records or other requests."""
    assert TraceContext.parse(header) is None


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("03", True), ("02", False), ("ff", True)])
def test_only_what_is_recorded_is_an_exemplar(flags: str, *, sampled: bool) -> None:
    """Nobody finds a trace that its caller throws away."""
    with following(TraceContext(TRACE, PARENT, flags)):
        assert exemplar() == ({"trace_id": TRACE} if sampled else None)


async def test_a_trace_ends_with_its_request() -> None:
    """Tasks that it starts belong to it; the next request, and what was started before, do not."""
    go_on = asyncio.Event()

    async def later() -> TraceContext | None:
        await go_on.wait()
        return current()

    before = asyncio.create_task(later())
    await asyncio.sleep(0)
    with following(TraceContext.parse(GOOD)):
        during, said = asyncio.create_task(later()), dict(noted())
    go_on.set()

    assert (await before, await during) == (None, TraceContext(TRACE, PARENT, "01"))
    assert said == {"trace_id": TRACE, "parent_id": PARENT}
    assert (current(), dict(noted()), exemplar()) == (None, {}, None)


@pytest.mark.parametrize(("times", "followed"), [(1, True), (2, False)])
async def test_a_header_that_is_there_twice_is_as_if_it_was_not_there(times: int, followed: bool) -> None:  # noqa: FBT001
    """Two of them contradict each other."""
    seen: list[TraceContext | None] = []

    async def handler(_request: web.BaseRequest) -> web.Response:
        seen.append(current())
        return web.Response()

    headers = CIMultiDict([("traceparent", GOOD)] * times)
    await guarded(handler, lambda: "id", Uncounted())(make_mocked_request("POST", "/v1/tokens", headers))

    assert seen == [TraceContext.parse(GOOD) if followed else None]

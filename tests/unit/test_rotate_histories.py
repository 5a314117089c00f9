"""Whatever happens in whatever order, readers are served and nothing piles up."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.errors import BrokerError
from broker.model.audit_record import Origin
from broker.vault.answer import unavailable
from tests.support.rotation import KEY, PLACE, RENEW_BEFORE, TTL, PowerCut, World, client

PATH = PLACE.path(KEY)
REPLACEMENTS = 50
STEPS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 60, 1800, RENEW_BEFORE, RENEW_BEFORE + 61, TTL])),
    st.tuples(st.just("visit"), st.none()),
    st.tuples(st.just("deliver"), st.none()),
    st.tuples(st.just("crash"), st.tuples(st.integers(0, 8), st.booleans())),
    st.tuples(st.just("crash delivery"), st.tuples(st.integers(0, 8), st.booleans())),
    st.tuples(st.just("overwrite"), st.none()),
    st.tuples(st.just("delete"), st.none()),
    st.tuples(st.just("outage"), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=25))
@example([("visit", None), *[("overwrite", None)] * 3, ("crash", (7, True)), ("overwrite", None)])
@example([("visit", None), ("wait", TTL), ("crash delivery", (2, True)), ("visit", None)])
@example(
    [
        ("visit", None),
        *[("wait", RENEW_BEFORE)] * 2,
        ("crash", (3, True)),  # a renewal, after the write and before its label
        *[("wait", 1800)] * 2,
        ("visit", None),
        *[("wait", 1800)] * 6,
        ("wait", 1),
        ("visit", None),
    ]
)
def test_no_history_breaks_a_reader_or_leaves_an_anchor(history: list[tuple[str, object]]) -> None:
    """No reader that looks as often as it should holds a dead token; in the end one anchor is left.

    An anchor that a crash left is used by the next version, so the history ends with one.
    """
    asyncio.run(_check_history(history))


async def _check_history(history: list[tuple[str, object]]) -> None:
    world = World()
    world.registry.put(client())
    for kind, argument in history:
        await _step(world, kind, argument)
        assert not world.broken_readers(), (kind, argument)
    await world.rotator.deliver(client(), "default", Origin("r"))
    token = world.token()
    assert token is not None
    assert world.cluster.accepts(token)
    world.registry.put(client(suspended=True))
    world.clock.pass_(RENEW_BEFORE + 61)
    await world.visit()
    assert len(world.cluster.versions) == 1
    assert len(world.vault.entries) == 1


async def _step(world: World, kind: str, argument: object) -> None:
    match kind, argument:
        case "wait", int(seconds):
            world.clock.pass_(seconds)
        case "visit", None:
            await world.visit()
        case "deliver", None:
            await world.rotator.deliver(client(), "default", Origin("r"))
        case ("crash" | "crash delivery") as what, (int(step), bool(after)):
            world.power.calls, world.power.cut_at, world.power.after_effect = [], step, after
            with suppress(PowerCut):
                await (world.visit() if what == "crash" else world.rotator.deliver(client(), "default", Origin("r")))
            world.restart()
        case "overwrite", None if PATH in world.vault.entries:
            world.vault.stranger_writes(PATH)
        case "delete", None if world.token() is not None:
            world.vault.delete_current(PATH)
        case "outage", None:
            world.vault.fault = unavailable("sealed")
            with suppress(BrokerError):
                await world.visit()
            world.vault.fault = None


@pytest.mark.parametrize("offset", [0.0, 0.01, 0.3, 0.7, 0.99])
async def test_a_reader_that_looks_every_renew_before_never_holds_a_dead_token(offset: float) -> None:
    """External Secrets' habit: it looks now and then, 50 replacements long, and calls all the time in between."""
    world = World()
    world.registry.put(client())
    due, look, held = await world.visit() or 0.0, RENEW_BEFORE * offset, world.token()
    seen: set[str | None] = set()
    now = 0.0
    while len(seen) < REPLACEMENTS:
        step = min(due, look) - now
        now += step
        world.clock.pass_(step)
        assert held is not None
        assert world.cluster.accepts(held), f"after {now:.0f} s"
        if due <= now:
            due = now + (await world.visit() or 0.0)
            assert world.cluster.accepts(held), f"after the visit at {now:.0f} s"
        if look <= now:
            held, look = world.token(), now + RENEW_BEFORE
        seen.add(world.token())

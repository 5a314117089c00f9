"""Whatever happens in whatever order, readers are served and nothing piles up."""

import asyncio
from contextlib import suppress

from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.errors import BrokerError
from broker.ports import Origin
from broker.vault.answer import unavailable
from tests.support.rotation import KEY, PLACE, RENEW_BEFORE, TTL, PowerCut, World, client

PATH = PLACE.path(KEY)
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
    assert len(world.cluster.anchors) == 1
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

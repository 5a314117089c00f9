"""Every call that a broker makes of its neighbours goes wrong in some history, in every way that there is."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from broker import ports
from tests.model.calls import NEVER, PORTS, PROTOCOLS
from tests.model.clients import WEB
from tests.model.crossings import Crossings
from tests.model.machine import NAMES, Shapes
from tests.model.wire import PASSING

NO_NEIGHBOURS = {
    "Clock": "clocks are set, and do not fail",
    "Leader": "the broker's own word; the Lease is asked for it",
    "LiveRegistry": "it is fed by lists and watches, which fail: `list`, and what becomes of a replica's sight",
    "Registry": "as above",
    "ProofReviewer": "requests are made of the services by clients whose proofs were judged before",
}
EVERYTHING: Shapes = tuple((kind, "reporter") for kind in ("kept", "single", "both", "reused", "plain"))
ROUNDS = 12


def test_no_port_is_forgotten() -> None:
    """One that is new has a fault, or a reason why it needs none."""
    there = {name for name, it in vars(ports).items() if inspect.isclass(it) and getattr(it, "_is_protocol", False)}
    known = {it.__name__ for it in PROTOCOLS.values()}
    calls = {f"{prefix}.{name}" for prefix, it in PROTOCOLS.items() for name in vars(it)}

    assert there - {"Protocol"} == (known - {"AccessReviews"}) | NO_NEIGHBOURS.keys()
    assert NEVER.keys() < calls


@pytest.mark.parametrize("port", PORTS)
def test_each_call_goes_wrong_in_every_way(port: str) -> None:
    """One way after the other, while a client comes, changes and goes; and in the end everything is as it should be."""
    history = Crossings()
    try:
        history.begin(EVERYTHING, [(port, 0, how) for how in PASSING], 0.0)
        left = history.world.faults.armed[port]
        for _ in range(ROUNDS):
            if left:
                _live(history)
    finally:
        history.teardown()

    assert left == []


def _live(history: Crossings) -> None:
    """Let a client come, use all that there is, and go; whatever died is started again."""
    for step in _steps(history):
        step()
        for name in NAMES:
            history._start(name)


def _steps(history: Crossings) -> Iterator[Callable[[], None]]:
    yield lambda: history.register(WEB, EVERYTHING)
    yield lambda: history.wait(40.0)
    for name in NAMES:
        yield partial(history.deliver, name, WEB, "kept", 1.0)
        for kind, _ in EVERYTHING:
            yield partial(history.ask, name, WEB, kind, 0.3)
    yield lambda: history.revoke("a", 0) if any(history._revocable()) else None
    yield lambda: history.suspend_or_resume(WEB)
    yield lambda: history.wait(20.0)
    yield lambda: history.ask("b", WEB, "plain", 0.3)
    yield lambda: history.suspend_or_resume(WEB)
    yield lambda: history.wait(20.0)
    yield lambda: history.cut_or_join("vault")
    yield lambda: history.wait(95.0)
    yield lambda: history.cut_or_join("vault")
    yield lambda: history.wait(40.0)
    yield lambda: history.register(WEB, EVERYTHING[-1:])
    yield lambda: history.wait(20.0)
    yield lambda: history.delete(WEB, orphan=False)
    yield lambda: history.wait(40.0)
    for name in NAMES:
        yield partial(history.end, name, kill=False, wait=1.0, start=True)

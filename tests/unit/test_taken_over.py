"""A broker that was started again serves by what the leader before has found, until it has looked itself."""

import asyncio
from dataclasses import replace

import pytest

from broker.errors import BrokerError
from broker.model.client import ClientId
from broker.services.workqueue import Lane
from tests.support.endings import OTHER, SINGLY, TOGETHER, WEB, EndingWorld, other, web
from tests.support.processes import until


@pytest.fixture
async def world() -> EndingWorld:
    """Return a world whose client was looked at by a broker that is no more; the next has heard of nobody yet."""
    world = EndingWorld()
    world.register(web())
    await world.settle()
    await world.settle()
    world.restart()
    return world


async def test_tokens_are_handed_out_before_anything_was_looked_at(world: EndingWorld) -> None:
    """With ten thousand clients a look at each takes minutes; hearing of them is enough, and calls nobody."""
    world.reconciler.changed(WEB)
    heard = list(world.power.calls)
    tokens = [(await world.issue(grant_name=name))[1] for name in (SINGLY, TOGETHER)]

    assert heard == []
    assert all(map(world.accepts, tokens))


async def test_what_is_looked_at_then_counts(world: EndingWorld) -> None:
    """An account that was given what its owner denies ends what was handed out by the word of the leader before."""
    world.reconciler.changed(WEB)
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.cluster.denied = {"reporter"}
    with pytest.raises(BrokerError, match="access_not_as_declared"):
        await world.reconciler.visit(WEB)

    assert not world.accepts(token)
    with pytest.raises(BrokerError, match="access_not_as_declared"):
        await world.issue(grant_name=TOGETHER)


async def test_what_has_changed_since_is_looked_at_first(world: EndingWorld) -> None:
    """The leader before has not seen the specification as it is now: the client may have been suspended in between."""
    world.register(web(generation=2))
    world.reconciler.changed(WEB)

    with pytest.raises(BrokerError, match="anchor_missing"):
        await world.issue(grant_name=TOGETHER)


async def test_who_is_suspended_gets_nothing(world: EndingWorld) -> None:
    """Whatever the status says yet."""
    it = world.cluster.resources[WEB]
    it.client = replace(it.client, suspended=True)
    world.reconciler.changed(WEB)

    with pytest.raises(BrokerError, match="client_suspended"):
        await world.issue(grant_name=TOGETHER)


async def test_what_the_leader_before_has_barred_stays_so(world: EndingWorld) -> None:
    """Its status names no anchor then."""
    it = world.cluster.resources[WEB]
    listed = [{key: value for key, value in one.items() if key != "anchorUID"} for one in it.status["grants"]]
    it.status = {**it.status, "grants": listed}
    world.reconciler.changed(WEB)

    with pytest.raises(BrokerError, match="anchor_missing"):
        await world.issue(grant_name=TOGETHER)


async def test_whoever_is_new_is_looked_at_before_those_who_were_looked_at_already(world: EndingWorld) -> None:
    """With ten thousand clients, looking at all of them again takes minutes."""
    world.reconciler.changed(WEB)
    world.register(other())
    world.reconciler.changed(OTHER)
    world.reconciler.lead()

    assert await visited(world) == [OTHER, WEB]


async def test_a_change_is_looked_at_before_what_was_looked_at_already(world: EndingWorld) -> None:
    """Also where it was there when the process began."""
    world.register(other())
    await world.reconciler.visit(OTHER)
    await world.board.write(OTHER)
    world.restart()
    for client_id in (OTHER, WEB):
        world.reconciler.changed(client_id)
    world.change(owner="others")

    assert await visited(world) == [WEB, OTHER]


async def visited(world: EndingWorld) -> list[ClientId]:
    """Return in which order what waits is visited."""
    order: list[ClientId] = []
    queue = world.reconciler.queue

    async def note(client_id: ClientId) -> None:
        order.append(client_id)
        await asyncio.sleep(0)

    queue._work = dict.fromkeys(queue._work, note)
    queue._workers = {Lane.NORMAL: 1, Lane.URGENT: 0}
    running = asyncio.create_task(queue.run())

    async def done() -> bool:
        return len(queue) == 0

    await until(done, what="all were visited")
    running.cancel()
    return order


async def test_a_forged_word_about_what_was_barred_mints_nothing(world: EndingWorld) -> None:
    """Who may write the status names the anchor and the account that were there: the anchor went with the tokens."""
    before = world.cluster.resources[WEB].status["grants"]
    world.cluster.denied = {"reporter"}
    await world.settle()
    world.restart()
    it = world.cluster.resources[WEB]
    it.status = {**it.status, "grants": before, "observedGeneration": 2**60}
    world.cluster.leading = False
    world.reconciler.changed(WEB)

    for name in (SINGLY, TOGETHER):
        with pytest.raises(BrokerError, match="anchor_missing"):
            await world.issue(grant_name=name)

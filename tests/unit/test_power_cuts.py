"""The power goes before or after any call to the outside: a broker that starts anew brings it to a clean end."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest

from broker.errors import BrokerError
from broker.model.audit_record import Origin
from broker.model.decision import standing
from broker.model.sensitive import Sensitive
from broker.model.vault_path import CopyKey
from tests.support.endings import OTHER, SINGLY, TOGETHER, WEB, EndingWorld, other, web
from tests.support.rotation import PowerCut, grant

MOST_CALLS = 150


@dataclass(slots=True)
class Run:
    """One flow: what was handed out before it, by grant, and to the other client."""

    world: EndingWorld
    held: dict[str, tuple[str, str]]
    in_vault: str
    others: list[str]

    @classmethod
    async def begin(cls) -> "Run":
        """Register two clients, and hand tokens out."""
        world = EndingWorld()
        world.register(web())
        world.register(other())
        await world.settle()
        held = {name: await world.issue(grant_name=name) for name in (SINGLY, TOGETHER)}
        others = [(await world.issue(OTHER, name))[1] for name in (SINGLY, TOGETHER)]
        in_vault = world.in_vault()
        assert in_vault is not None
        return cls(world, held, in_vault, others)

    def alive(self) -> set[str]:
        """Return which of what the client held still works."""
        tokens = {name: token for name, (_, token) in self.held.items()} | {"vault": self.in_vault}
        return {name for name, token in tokens.items() if self.world.accepts(token)}


Change = Callable[[Run], Awaitable[None]]


async def suspend(run: Run) -> None:
    """Suspend the client."""
    run.world.register(web(suspended=True, generation=2))


async def resume(run: Run) -> None:
    """Resume a client that was suspended."""
    await suspend(run)
    await run.world.settle()
    run.world.restart()
    run.world.register(web(generation=3))


async def delete(run: Run) -> None:
    """Delete the TokenClient."""
    run.world.cluster.delete_client(WEB)


async def delete_with_orphans(run: Run) -> None:
    """Delete it in the way that leaves what it owns."""
    run.world.cluster.delete_client(WEB, orphan=True)


async def remove_a_grant(run: Run) -> None:
    """Take the grant with a copy out of the TokenClient."""
    run.world.register(web(grants=(grant(name=TOGETHER, vault=None),), generation=2))


async def change_the_account(run: Run) -> None:
    """Let a grant be for another account."""
    first, second = web().grants
    run.world.register(web(grants=(replace(first, service_account="next"), second), generation=2))


async def revoke_all(run: Run) -> None:
    """End what was handed out, and ask for new versions."""
    await run.world.revoke_all(now=False)


async def revoke_all_now(run: Run) -> None:
    """End what was handed out, and what is in Vault."""
    await run.world.revoke_all(now=True)


async def pass_the_end(run: Run) -> None:
    """Let the registration's time be over."""
    run.world.register(web(not_after=run.world.clock.now(), generation=2))


@dataclass(frozen=True, slots=True)
class Flow:
    """A change, and which tokens work when it has come to its end; ``gone``: the TokenClient is, too."""

    change: Change
    alive: frozenset[str] = frozenset()
    gone: bool = False


FLOWS = {
    "suspend": Flow(suspend),
    "resume": Flow(resume),
    "delete": Flow(delete, gone=True),
    "delete_with_orphans": Flow(delete_with_orphans, gone=True),
    "remove_a_grant": Flow(remove_a_grant, alive=frozenset({TOGETHER})),
    "change_the_account": Flow(change_the_account, alive=frozenset({TOGETHER})),
    "revoke_all": Flow(revoke_all, alive=frozenset({"vault"})),
    "revoke_all_now": Flow(revoke_all_now),
    "not_after": Flow(pass_the_end),
}


async def cut(world: EndingWorld, what: Callable[[], Awaitable[object]], at: int, *, after: bool) -> bool:
    """Do something with a power cut at a call; tell whether it came so far, and start a new broker then."""
    world.restart()
    return await cut_off(world, what, at, after=after)


async def cut_off(world: EndingWorld, what: Callable[[], Awaitable[object]], at: int, *, after: bool) -> bool:
    """Do the same with the broker that is running."""
    world.power.calls, world.power.cut_at, world.power.after_effect = [], at, after
    try:
        await what()
    except PowerCut:
        world.restart()
        return True
    world.power.cut_at = None
    return False


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", FLOWS)
async def test_a_flow_that_is_cut_anywhere_ends_clean(name: str, *, after: bool) -> None:
    """No anchor is left that should not be there, none is missing, and only what may work does."""
    flow, was_cut, at = FLOWS[name], True, 0
    while was_cut:
        run = await Run.begin()
        await flow.change(run)
        was_cut = await cut(run.world, run.world.settle, at, after=after)
        await run.world.settle()

        assert run.alive() == flow.alive, at
        assert run.world.tops() == run.world.wanted(), at
        assert all(map(run.world.accepts, run.others)), at
        assert (WEB not in run.world.cluster.resources) is flow.gone, at
        await assert_tokens_are_issued(run.world)
        at += 1
    assert 3 < at < MOST_CALLS


async def assert_tokens_are_issued(world: EndingWorld) -> None:
    """Assert that each client which may have tokens gets them, and finds a good one in Vault."""
    for client_id, it in world.cluster.resources.items():
        active = standing(it.client, world.clock.now()) is None
        for one in it.client.grants:
            if active:
                assert world.accepts((await world.issue(client_id, one.name))[1])
            if one.vault:
                copy = world.in_vault(CopyKey(client_id, one.name))
                assert copy is not None
                assert world.accepts(copy) is active


@pytest.mark.parametrize("after", [False, True])
async def test_a_first_issue_that_is_cut_anywhere_can_be_asked_for_again(*, after: bool) -> None:
    """A new client is prepared, and its anchors are those of every other."""
    was_cut, at = True, 0
    while was_cut:
        world = EndingWorld()
        world.register(web())

        async def first(world: EndingWorld = world) -> None:
            await world.settle()
            await world.issue()
            await world.issue(grant_name=TOGETHER)

        was_cut = await cut(world, first, at, after=after)
        await world.settle()
        await assert_tokens_are_issued(world)
        assert world.tops() == world.wanted(), at
        at += 1
    assert 10 < at < MOST_CALLS


@pytest.mark.parametrize("after", [False, True])
async def test_a_grant_that_goes_during_its_first_issue_leaves_nothing(*, after: bool) -> None:
    """Before a grant has an anchor, the status lists it: so a broker that starts anew knows what to end."""
    was_cut, at = True, 0
    while was_cut:
        world = EndingWorld()
        world.register(web())
        was_cut = await cut(world, world.settle, at, after=after)
        world.register(web(grants=(grant(name=TOGETHER, vault=None),), generation=2))
        await world.settle()

        assert world.tops() == world.wanted(), at
        world.cluster.delete_client(WEB, orphan=True)
        await world.settle()
        assert not world.cluster.anchors, at
        at += 1
    assert 10 < at < MOST_CALLS


@pytest.mark.parametrize("after", [False, True])
async def test_an_account_that_is_found_to_may_what_is_denied_ends_clean(*, after: bool) -> None:
    """Its tokens end, also the one in Vault, whatever happens to the broker that found it; when mended, it goes on."""
    was_cut, at = True, 0
    while was_cut:
        run = await Run.begin()
        run.world.cluster.denied.add("reporter")
        was_cut = await cut(run.world, run.world.settle, at, after=after)
        await run.world.settle()

        assert run.alive() == set(), at
        with pytest.raises(BrokerError, match="access_not_as_declared"):
            await run.world.issue()
        run.world.cluster.denied.clear()
        await run.world.settle()
        await assert_tokens_are_issued(run.world)
        assert run.world.tops() == run.world.wanted(), at
        at += 1
    assert 3 < at < MOST_CALLS


async def revoke_by_id(run: Run) -> None:
    """End a token by its id."""
    await run.world.revoker.by_id(web(), run.held[SINGLY][0], Origin("r"))


async def revoke_by_token(run: Run) -> None:
    """End a token by itself."""
    await run.world.revoker.by_token(web(), Sensitive(run.held[SINGLY][1]), Origin("r"))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("revoke", "calls"), [(revoke_by_id, len(web().grants)), (revoke_by_token, 2)])
async def test_one_token_that_is_revoked_again_is_gone(revoke: Change, calls: int, *, after: bool) -> None:
    """Who got no answer asks again; all other tokens live on."""
    was_cut, at = True, 0
    while was_cut:
        run = await Run.begin()
        was_cut = await cut(run.world, partial(revoke, run), at, after=after)
        if was_cut:
            await revoke(run)
        await run.world.settle()

        assert run.alive() == {TOGETHER, "vault"}
        assert run.world.tops() == run.world.wanted()
        at += 1
    assert at == calls + 1


@pytest.mark.parametrize("after", [False, True])
async def test_a_token_that_nobody_got_goes_with_its_bucket(*, after: bool) -> None:
    """A cut while a token is made leaves an anchor at most until the bucket's tokens have all ended."""
    was_cut, at = True, 0
    while was_cut:
        run = await Run.begin()
        await run.world.settle()
        was_cut = await cut_off(run.world, run.world.issue, at, after=after)
        await run.world.settle()
        run.world.clock.pass_(36 * 3600 + 6 * 3600)
        await run.world.settle()

        assert [name for name in run.world.cluster.anchors if "-t" in name.rpartition("anchor-")[2]] == []
        at += 1
    assert at > 0


async def test_flows_cut_twice_end_clean() -> None:
    """The second broker is cut as well, at the same place or another."""
    for flow in (FLOWS["change_the_account"], FLOWS["delete_with_orphans"], FLOWS["suspend"]):
        for first in range(0, 30, 7):
            for second in range(0, 30, 8):
                run = await Run.begin()
                await flow.change(run)
                await cut(run.world, run.world.settle, first, after=True)
                await cut(run.world, run.world.settle, second, after=False)
                await run.world.settle()
                run.world.restart()
                await run.world.settle()
                assert run.alive() == flow.alive
                assert run.world.tops() == run.world.wanted()

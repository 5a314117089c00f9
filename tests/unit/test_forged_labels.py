"""Somebody who may write a copy's metadata in Vault, and nothing else, wants its tokens to outlive a suspension."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.model.anchor import AnchorId, grant_anchor, is_version, trial_anchor, vault_anchor, version_anchor
from broker.model.audit_record import Origin
from broker.model.stored_copy import RetiredAnchor
from broker.model.token import Anchor
from broker.services.rotation.copy import MAX_RETIRED
from tests.support.rotation import KEY, PLACE, World, client, grant

PATH = PLACE.path(KEY)
TOP = vault_anchor("uid-1", grant())
OTHERS = [
    vault_anchor("uid-of-another-client", grant()),
    grant_anchor("uid-1", grant()),
    trial_anchor("uid-1", grant()),
]


@pytest.fixture
async def world() -> World:
    """Return a world with one client whose copy is there."""
    world = World()
    world.registry.put(client())
    await world.visit()
    return world


async def forge(world: World, which: AnchorId, **changes: object) -> Anchor:
    """Let an anchor be there, and the label say that the copy's token is bound to it."""
    anchor = await world.cluster.ensure(client(), which)
    label = world.vault.entries[PATH].label
    assert label is not None
    world.vault.entries[PATH].label = replace(label, anchor=anchor, **changes)  # type: ignore[arg-type]
    return anchor


async def suspend(world: World) -> None:
    """Do what ends the tokens in Vault: delete the anchor above them."""
    await world.cluster.delete("shop", TOP.name)


@pytest.mark.parametrize("which", OTHERS, ids=["another client's", "the grant's", "the trial's"])
async def test_a_forged_label_lets_no_renewed_token_outlive_a_suspension(world: World, which: AnchorId) -> None:
    """The copy's time has come: its next token is bound to what a suspension deletes, whatever the label says."""
    await forge(world, which)
    renewal = world.facts().renewal_time
    assert renewal is not None
    world.clock.moment = renewal

    await world.visit()
    token = world.token()
    assert token is not None
    assert world.facts().version == 2
    assert world.cluster.accepts(token)
    await suspend(world)

    assert not world.cluster.accepts(token)


async def test_a_forged_label_lets_no_token_that_was_asked_for_outlive_a_suspension(world: World) -> None:
    """It names more replaced versions than have anchors of their own, so that the next would share the forged one."""
    until = world.clock.now() + timedelta(hours=1)
    retired = tuple(RetiredAnchor(Anchor(f"{TOP.name}-00000000-v{100 + n}", f"uid-{n}"), until) for n in range(16))
    assert len(retired) == MAX_RETIRED
    await forge(world, OTHERS[0], retired=retired)

    await world.rotator.deliver(client(), "default", Origin("r"))
    token = world.token()
    assert token is not None
    assert world.cluster.accepts(token)
    await suspend(world)

    assert not world.cluster.accepts(token)


def test_only_the_anchor_of_a_version_is_called_so() -> None:
    """Neither the anchor above, nor one below another root, nor another's."""
    root = Anchor(TOP.name, "ABCDEF01-2345")
    own = version_anchor(TOP, root, 12).name

    assert is_version(own, TOP, root.uid)
    assert not is_version(own, TOP, "ffffffff-2345")
    assert not is_version(own, OTHERS[0], root.uid)
    assert not is_version(f"{own}x", TOP, root.uid)
    assert not is_version(TOP.name, TOP, root.uid)
    assert not is_version(f"{TOP.name}-tabc", TOP, root.uid)

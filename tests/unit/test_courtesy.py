"""Rotation lets callers go first, for a moment at each call, and finishes what it has begun."""

import pytest

from broker.model.decision import Allowed
from broker.model.token import Anchor, MintedToken
from broker.services.rotation.courtesy import STAND_BACK_SECONDS, CourteousMinter, CourteousStore
from tests.support.rotation import KEY, PLACE, World, client


class Busy:
    """Implements Callers: notes what was asked for, in the order of all that happens."""

    def __init__(self) -> None:
        self.happened: list[object] = []

    async def quiet(self, seconds: float) -> None:
        """Note that somebody stands back."""
        self.happened.append(seconds)


class Minting:
    """Implements BelowMinter: mints nothing."""

    def __init__(self, busy: Busy) -> None:
        self.busy = busy

    async def mint_below(self, client: object, allowed: object, anchor: object) -> MintedToken:
        """Note what was asked for."""
        self.busy.happened.append((client, allowed, anchor))
        raise LookupError


async def test_a_token_is_minted_after_the_callers() -> None:
    """Of what was asked for."""
    busy, owner = Busy(), client()
    allowed, anchor = Allowed(owner.grants[0], "x", 600), Anchor("a", "u")
    with pytest.raises(LookupError):
        await CourteousMinter(Minting(busy), busy).mint_below(owner, allowed, anchor)

    assert busy.happened == [STAND_BACK_SECONDS, (owner, allowed, anchor)]


async def test_looks_and_versions_stand_back_and_what_completes_a_version_does_not() -> None:
    """A version without its label is one that the next broker has to mend."""
    world, busy = World(), Busy()
    store, path = CourteousStore(world.vault, busy), PLACE.path(KEY)
    version = await store.write(path, {"token": "x"}, cas=0)
    found = await store.inspect(path)
    before = list(busy.happened)
    names = await store.children(path[:-1])
    await store.remove(path)

    assert version == 1
    assert found is not None
    assert found.current_version == 1
    assert names == [path[-1]]
    assert before == busy.happened == [STAND_BACK_SECONDS] * 2
    assert await world.vault.inspect(path) is None

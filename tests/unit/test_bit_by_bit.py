"""Thousands of keys are taken in without holding up who comes meanwhile, and none is left out."""

import asyncio

import pytest

from broker.services.bit_by_bit import FEW, bit_by_bit


def test_few_are_taken_at_once_and_need_no_loop() -> None:
    """What is no more than a few does not wait."""
    taken: list[int] = []

    bit_by_bit(taken.append, range(FEW - 1))

    assert taken == list(range(FEW - 1))


@pytest.mark.parametrize("many", [FEW, FEW + 1, 2 * FEW, 7 * FEW + 3])
async def test_others_have_their_turn_between_few_and_few(many: int) -> None:
    """Somebody who comes each time that the loop goes round never waits for more than a few."""
    taken: list[int] = []
    seen = [0]

    bit_by_bit(taken.append, range(many))
    while seen[-1] != len(taken):
        seen.append(len(taken))
        await asyncio.sleep(0)

    assert taken == list(range(many))
    assert max(after - before for before, after in zip(seen, [*seen[1:], many], strict=True)) == FEW


async def test_one_that_cannot_be_taken_holds_up_none_of_the_next() -> None:
    """Who began hears of it, where it is among the first."""
    taken: list[int] = []

    def take(number: int) -> None:
        if number in {0, FEW}:
            raise LookupError
        taken.append(number)

    heard: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: heard.append(what))
    with pytest.raises(LookupError):
        bit_by_bit(take, range(2 * FEW + 3))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert taken == [2 * FEW, 2 * FEW + 1, 2 * FEW + 2]
    assert [type(what["exception"]) for what in heard] == [LookupError]


async def test_keys_may_change_meanwhile() -> None:
    """Those are taken that were there when it began, though what holds them has changed since."""
    keys = dict.fromkeys(range(2 * FEW))
    taken: list[int] = []

    bit_by_bit(taken.append, keys)
    keys.clear()
    await asyncio.sleep(0)

    assert taken == list(range(2 * FEW))

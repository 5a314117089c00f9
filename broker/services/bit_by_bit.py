"""Take thousands of keys in, and let who calls meanwhile have his turn."""

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

Key = TypeVar("Key")

FEW = 100
"""How many are taken in one go: under a millisecond, where each is put into a queue."""


def bit_by_bit(take: Callable[[Key], None], keys: Iterable[Key]) -> None:
    """Call ``take`` for each key: for the first few now, and for as many whenever the loop has seen to all the rest.

    What is to be done with a key may have changed by then; whoever visits it goes by what is known at that time.
    """
    rest = iter(tuple(keys))

    def take_some() -> None:
        taken = 0
        for key in islice(rest, FEW):
            take(key)
            taken += 1
        if taken == FEW:
            asyncio.get_running_loop().call_soon(take_some)

    take_some()

"""Take thousands of keys in, and let who calls meanwhile have his turn."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

Key = TypeVar("Key")

FEW = 100
"""How many are taken in one go: half a millisecond, where each is put into a queue, and more where it is looked at."""


def bit_by_bit(take: Callable[[Key], None], keys: Iterable[Key]) -> None:
    """Call ``take`` for each key: for the first few now, and for as many whenever the loop has seen to all the rest.

    What is to be done with a key may have changed by then; whoever visits it goes by what is known at that time. What
    taking one raises holds up none but the other few.
    """
    _take_some(take, iter(tuple(keys)))


def _take_some(take: Callable[[Key], None], rest: Iterator[Key]) -> None:
    some = tuple(islice(rest, FEW))
    if len(some) == FEW:
        asyncio.get_running_loop().call_soon(_take_some, take, rest)
    for key in some:
        take(key)

"""All that people and tools see of an object or an error when they print it."""

import pprint
import reprlib
import traceback
from collections.abc import Callable, Iterator

from _pytest._io.saferepr import saferepr

from broker.logs import json_line

_DEEPEST = 4
_WAYS: tuple[Callable[[object], object], ...] = (
    *(repr, str, ascii, "{}".format, "{!s:>9}".format, pprint.pformat, reprlib.repr, saferepr),
    lambda value: json_line({"event": "said", "value": value}),
)


def printed(value: object) -> str:
    """Return an object as Python, pytest and the log show it, alone and inside of others."""
    nested = {"one": value, "more": [value, (value,)]}
    return "\n".join(str(way(one)) for way in _WAYS for one in (value, nested))


def printed_error(error: BaseException) -> str:
    """Return an error as printed, its stack trace, and what its attributes and those of its causes hold."""
    held = (value for one in _told(error) for value in (one, *_held(one, _DEEPEST)))
    return "\n".join([*traceback.format_exception(error), *map(printed, held)])


def _told(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that are told with it; what ``from None`` cuts off is told by nobody."""
    yield error
    following = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if following is not None:
        yield from _told(following)


def _held(value: object, deepest: int) -> Iterator[object]:
    if deepest:
        for inner in (*getattr(value, "args", ()), *getattr(value, "__dict__", {}).values()):
            yield inner
            yield from _held(inner, deepest - 1)

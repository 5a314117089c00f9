"""Search texts for tokens and secrets: known ones piece by piece, unknown ones by their looks, in disguise too."""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

PIECE = 16
STRIDE = 8
"""Of a known value, any part of PIECE + STRIDE - 1 characters is found."""

DISGUISES = 2
"""An encoding inside an encoding is looked through, such as HTTP Basic in a URL."""

LOOKS = {
    "a JWT": re.compile(r"eyJ[\w-]{10,}\.[\w-]{10,}", re.ASCII),
    "a client's secret": re.compile(r"tbs_[\w-]{43}", re.ASCII),
    "a token of Vault's": re.compile(r"[sbr]\.(?=[\w-]*[A-Z])(?=[\w-]*\d)[\w-]{20,}", re.ASCII),
}
_RUN = re.compile(r"[\w+/=.%-]{16,}", re.ASCII)
_CONTEXT = 100
_CONTINUE = re.compile(r"(?<=continue=)[\w%=-]+", re.ASCII)
"""Where a list goes on (https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks)."""


@dataclass(frozen=True, slots=True)
class Output:
    """A text that somebody may read, and where it stands."""

    source: str
    text: str


class Search:
    """Looks for ``values``, given by what they are, and for anything that looks like one."""

    def __init__(self, values: Mapping[str, Iterable[str]]) -> None:
        self._pieces = {
            piece: kind for kind, several in values.items() for value in several for piece in _pieces(value)
        }

    def leaks(self, outputs: Iterable[Output]) -> list[str]:
        """Return a line for each leak: where, what, and what stands before it; never the value."""
        return [
            f"{output.source}, line {output.text.count(chr(10), 0, at) + 1}: {what} after {_before(output.text, at)!r}"
            for output in outputs
            for at, what in self._found(output.text)
        ]

    def _found(self, text: str) -> Iterator[tuple[int, str]]:
        for run in {match[0] for match in _RUN.finditer(text)}:
            parts = _RUN.findall(_CONTINUE.sub(_opened, run))
            what = next(filter(None, (self._what(part, DISGUISES) for part in parts)), None)
            if what is not None:
                yield text.index(run), what

    def _what(self, run: str, disguises: int) -> str | None:
        """Return what is in a run of characters, or in what it stands for; None where it is innocent."""
        plain = self._known(run) or next((what for what, looks in LOOKS.items() if looks.search(run)), None)
        if plain is not None or disguises == 0:
            return plain
        hidden = (match[0] for text in _undisguised(run) for match in _RUN.finditer(text))
        return next((f"{what}, encoded" for what in (self._what(one, disguises - 1) for one in hidden) if what), None)

    def _known(self, run: str) -> str | None:
        windows = (run[start : start + PIECE] for start in range(len(run) - PIECE + 1))
        return next((self._pieces[window] for window in windows if window in self._pieces), None)


def _pieces(value: str) -> Iterator[str]:
    last = len(value) - PIECE
    if last < 0:
        raise ValueError("a value this short would be found everywhere")
    for start in {*range(0, last, STRIDE), last}:
        yield value[start : start + PIECE]


def _undisguised(run: str) -> Iterator[str]:
    """Yield what a run may stand for: percent-encoded text, or base64 that starts anywhere in a group of four."""
    if "%" in run:
        yield unquote(run)
    for word in re.split(r"[.=%]", run.replace("-", "+").replace("_", "/")):
        for start in range(4):
            whole = word[start : len(word) - (len(word) - start) % 4]
            if len(whole) > PIECE:
                yield _decoded(whole)


def _decoded(word: str) -> str:
    try:
        return base64.b64decode(word).decode("latin-1")
    except binascii.Error:
        return ""


def _opened(place: re.Match[str]) -> str:
    """Return the name that a place in a list is, in base64 as parts of tokens are; what is none stays as it is."""
    word = unquote(place[0])
    try:
        said = json.loads(base64.urlsafe_b64decode(word + "=" * (-len(word) % 4)))
    except ValueError:
        return place[0]
    match said:
        case {"v": "meta.k8s.io/v1", "rv": int(), "start": str(start), **more} if not more:
            return f" {start} "
    return place[0]


def _before(text: str, at: int) -> str:
    return text[max(0, at - _CONTEXT) : at].rpartition("\n")[2]

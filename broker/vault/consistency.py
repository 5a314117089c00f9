"""What was written is what is read afterwards, also where a standby answers reads by itself, a moment behind.

A server says after each write how far the data has got; whoever says so again is answered by no server that is behind.
Sources: https://openbao.org/community/rfcs/index-headers/ (OpenBao 2.7 and later),
https://developer.hashicorp.com/vault/docs/enterprise/consistency. Older servers ignore these headers.
"""

import asyncio
import base64
import math
import re
from http import HTTPStatus
from typing import TypeVar

import orjson

from broker.vault.answer import Answer
from broker.wire.connection import Connection, Made

INDEX, INCONSISTENT = "X-Vault-Index", "X-Vault-Inconsistent"

KEPT_SECONDS = 60.0
"""A standby that works is not so far behind. An index of data that is gone, as after a restore, is forgotten then."""

_BASE64 = re.compile(r"[0-9A-Za-z+/=_-]{1,1024}")
_NAME = INDEX.lower().encode()
A = TypeVar("A")


class StorageIndex:
    """How far the data had got after the writes that were answered: the furthest, where that can be told."""

    def __init__(self) -> None:
        self._value = ""
        self._since = 0.0
        self._asked = -math.inf

    def note(self, value: str, asked: float) -> None:
        """Remember what the answer says to a request sent at ``asked``, a time of the loop's clock.

        It is passed over where it is known to be less than what is remembered; where the two cannot be compared,
        unless the request was sent after that of which this is remembered. What would not go back into a request is
        passed over too.
        """
        if not _BASE64.fullmatch(value):
            return
        now = asyncio.get_running_loop().time()
        if self._value and now - self._since <= KEPT_SECONDS:
            further = _further(value, self._value)
            if not (asked > self._asked if further is None else further):
                return
        self._value, self._since, self._asked = value, now, asked

    def sent(self, *, active: bool = False) -> dict[str, str]:
        """Return the headers of a call; ``active`` has a server that is behind pass it on to the active one.

        Without it such a server refuses the call. It is asked for only then: HashiCorp Vault has to be configured so.
        """
        if not self._value or asyncio.get_running_loop().time() - self._since > KEPT_SECONDS:
            return {}
        return {INDEX: self._value, INCONSISTENT: "forward-active-node"} if active else {INDEX: self._value}


class IndexedConnection(Connection[A]):
    """A connection that tells an index of what its answers say of it."""

    def __init__(self, index: StorageIndex, made: Made[A]) -> None:
        super().__init__(made)
        self._index = index
        self._asked = 0.0

    async def exchange(self, request: bytes, deadline: float, largest: int | None = None) -> A:
        """Note when it was asked; see :meth:`Connection.exchange`."""
        self._asked = asyncio.get_running_loop().time()
        return await super().exchange(request, deadline, largest)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note how far the data has got."""
        super().on_header(name, value)
        if name.lower() == _NAME:
            self._index.note(value.decode("latin-1"), self._asked)


def _further(new: str, old: str) -> bool | None:
    """Tell whether one index is at least as far as another; None where they cannot be compared."""
    left, right = _parsed(new), _parsed(old)
    if left is None or right is None or left[0] != right[0] or len(left[1]) != len(right[1]):
        return None
    pairs = list(zip(left[1], right[1], strict=True))
    if all(one >= other for one, other in pairs):
        return True
    return False if all(one <= other for one, other in pairs) else None


def _parsed(index: str) -> tuple[str, tuple[int, ...]] | None:
    """Return the cluster and how far it has got: OpenBao's ``{"cluster", "value"}``, or ``v1:cluster:n:n:hmac``."""
    try:
        text = base64.b64decode(index, validate=True).decode()
        if text.startswith("v1:"):
            _, cluster, local, replicated, _ = text.split(":")
            return cluster, (int(local), int(replicated))
        said = orjson.loads(text)
        return str(said["cluster"]), (int(said["value"]),)
    except (ValueError, KeyError, TypeError):
        return None


def behind(answer: Answer) -> bool:
    """Tell whether a server did nothing because it has not got the data yet (412; OpenBao 2.7: 429 without a word).

    A 429 over a quota says so.
    """
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return answer.body.get("errors") == []
    return answer.status == HTTPStatus.PRECONDITION_FAILED

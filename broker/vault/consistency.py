"""What was written is what is read afterwards, also where a standby answers reads by itself, a moment behind.

A server says after each write how far the data has got; whoever says so again is answered by no server that is behind.
Sources: https://openbao.org/community/rfcs/index-headers/ (OpenBao 2.7 and later),
https://developer.hashicorp.com/vault/docs/enterprise/consistency. Older servers ignore these headers.
"""

import asyncio
import re
from http import HTTPStatus
from typing import TypeVar

from broker.vault.answer import Answer
from broker.wire.connection import Connection, Made

INDEX, INCONSISTENT = "X-Vault-Index", "X-Vault-Inconsistent"

KEPT_SECONDS = 60.0
"""A standby that works is not so far behind. An index of data that is gone, as after a restore, is forgotten then."""

_BASE64 = re.compile(r"[0-9A-Za-z+/=_-]{1,1024}")
_NAME = INDEX.lower().encode()
A = TypeVar("A")


class StorageIndex:
    """How far the data had got after the last write that was answered."""

    def __init__(self) -> None:
        self._value = ""
        self._since = 0.0

    def note(self, value: str) -> None:
        """Remember what an answer says, unless it would not go back into a request."""
        if _BASE64.fullmatch(value):
            self._value, self._since = value, asyncio.get_running_loop().time()

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

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note how far the data has got."""
        super().on_header(name, value)
        if name.lower() == _NAME:
            self._index.note(value.decode("latin-1"))


def behind(answer: Answer) -> bool:
    """Tell whether a server did nothing because it has not got the data yet (412; OpenBao 2.7: 429 without a word).

    A 429 over a quota says so.
    """
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return answer.body.get("errors") == []
    return answer.status == HTTPStatus.PRECONDITION_FAILED

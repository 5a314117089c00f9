"""An API server whose tokens live for a tenth of what was asked, so that it takes a minute until one ends."""

import asyncio
import json
import re
from typing import Any

from broker.kube.token_requests import unverified_claims
from tests.support.chaos.proxy import ChaosProxy
from tests.support.cluster import Cluster
from tests.support.doctor import forged

SHORTENED = 10
"""Nobody can ask for less than ten minutes. The broker goes by what it gets, which may be shorter than asked."""

_TOKEN_REQUEST = re.compile(rb"POST /api/v1/namespaces/[^/]+/serviceaccounts/[^/]+/token ")
_LENGTH = re.compile(rb"(?<=\r\ncontent-length: )\d+", re.IGNORECASE)


class ShorteningProxy(ChaosProxy):
    """Signs each token anew, with an earlier end and the cluster's own key: for the API server it is one of its own.

    All else in it stays: its id, its anchor, when it was issued. ``server`` is a cluster of the tests' own.
    """

    async def _pass_on(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not _TOKEN_REQUEST.match(request):
            await super()._pass_on(request, reader, writer)
            return
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if length is None:
            raise RuntimeError("an answer to a TokenRequest does not tell its length")
        body = self._shortened(json.loads(await reader.readexactly(int(length[0]))))
        writer.write(_LENGTH.sub(str(len(body)).encode(), head) + body)
        await writer.drain()

    def _shortened(self, answer: dict[str, Any]) -> bytes:
        if isinstance(self._server, Cluster) and "token" in answer.get("status", ()):  # else it is a refusal
            genuine = answer["status"]["token"]
            claims = unverified_claims(genuine)
            ends = claims["iat"] + (claims["exp"] - claims["iat"]) // SHORTENED
            answer["status"]["token"] = forged(self._server, genuine, exp=ends)
        return json.dumps(answer).encode()

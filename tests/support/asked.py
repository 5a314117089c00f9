"""A session with an API server that answers as it is told to, and what it was asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from broker.kube.session import KubeSession
from broker.ports import Registration
from tests.support.certificates import Authority
from tests.support.scripted import Reply, ScriptedServer, answer, says, scripted


class Heard:
    """Hears what calls have made of registrations: ``of`` lists what was seen, and what is there now."""

    def __init__(self) -> None:
        self.of: list[tuple[Registration, Registration]] = []

    def written(self, seen: Registration, now: Registration) -> None:
        """Keep one."""
        self.of.append((seen, now))


@asynccontextmanager
async def answered(folder: Path, *replies: Reply) -> AsyncIterator[tuple[KubeSession, ScriptedServer]]:
    """Open a session with a server that gives these replies, one after the other."""
    (folder / "token").write_text("own.token")
    ca_file = Authority.create(folder, "test").file
    async with scripted(*replies) as server, KubeSession(server.url, ca_file, folder / "token", 5) as session:
        yield session, server


def status(code: int, message: str = "", **more: Any) -> Reply:
    """Answer with a Status, as the API server says that something failed."""
    return says(answer(code, orjson.dumps({"kind": "Status", "code": code, "message": message, **more})))


def document(body: Any, code: int = 200) -> Reply:
    """Answer with a JSON document."""
    return says(answer(code, orjson.dumps(body)))


def line(request: bytes) -> str:
    """Return method and path of a request."""
    return request.split(b" HTTP/", 1)[0].decode()


def body(request: bytes) -> Any:
    """Return the document that was sent, or None."""
    sent = request.partition(b"\r\n\r\n")[2]
    return orjson.loads(sent) if sent else None

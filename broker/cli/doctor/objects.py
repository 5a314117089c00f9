"""What is known of an object by name: there, gone, or hidden from who asks."""

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

from broker.cli.cluster import Answer, Cluster
from broker.cli.manifests import Manifest
from broker.cli.times import parse_time

METADATA_ONLY = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
"""What is in a Secret is nothing that is asked for here."""


@dataclass(frozen=True, slots=True)
class Seen:
    """``refusal`` is why it cannot be told; else ``metadata`` is None where there is no such object."""

    metadata: Manifest | None = None
    refusal: str = ""

    @property
    def uid(self) -> str:
        """Return its uid, or nothing."""
        return str(self.metadata["uid"]) if self.metadata else ""

    def time(self, name: str) -> datetime | None:
        """Return a time of its metadata, such as ``creationTimestamp``."""
        text = (self.metadata or {}).get(name)
        return parse_time(text) if text else None


def seen(answer: Answer) -> Seen:
    """Return what an answer to the GET of one object says."""
    if answer.status == HTTPStatus.OK:
        return Seen(answer.document.get("metadata", {}))
    if answer.status == HTTPStatus.NOT_FOUND:
        return Seen()
    return Seen(refusal=message(answer))


def message(answer: Answer) -> str:
    """Return the API server's words, in one line."""
    return " ".join(str(answer.document.get("message") or f"HTTP {answer.status}").split())[:300]


async def look(cluster: Cluster, where: str) -> Seen:
    """Look at one object's metadata."""
    return seen(await cluster.ask("GET", where, headers=METADATA_ONLY))

"""Which TokenClients stand in a directory's files. Pure: contents in, registrations out.

A file serves all of its TokenClients or none: where one document cannot be told whose it is, nobody can say what the
file means.
"""

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from broker.directory.documents import NotPlainError, documents
from broker.directory.files import Unreadable
from broker.errors import Fault, Reason
from broker.model.client import API_GROUP, API_VERSION, DNS_LABEL, ClientId
from broker.ports import Registration
from broker.registration.manifest import read_registration

_LISTS = frozenset({("v1", "List"), (API_VERSION, "TokenClientList")})
_FIELDS = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_METADATA = frozenset(
    {
        "name",
        "namespace",
        "labels",
        "annotations",
        # What the API server adds to what it hands out; left out of what is read.
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "managedFields",
        "finalizers",
    }
)
_UIDS = uuid.uuid5(uuid.NAMESPACE_DNS, API_GROUP)


class NoTokenClientError(ValueError):
    """A document is not a TokenClient of a known version and name."""


@dataclass(frozen=True, slots=True)
class File:
    """What was found in a file. ``problem`` says why it serves nobody; then ``ids`` are those it named before."""

    name: str
    ids: tuple[ClientId, ...]
    registrations: tuple[Registration, ...] = ()
    problem: str = ""


def read_file(name: str, content: bytes | Unreadable, cluster: str, before: File | None) -> File:
    """Return what a file says. ``before`` is what it said last, for those that a broken one must not serve."""
    try:
        found = () if isinstance(content, Unreadable) else tuple(_registrations(content, cluster))
    except (NotPlainError, NoTokenClientError) as error:
        return _broken(name, str(error), before)
    if isinstance(content, Unreadable):
        return _broken(name, content.problem, before)
    return File(name, tuple(registration.id for registration in found), found)


def merged(files: Iterable[File], cluster: str) -> list[Registration]:
    """Return one registration a client. Where two documents describe one, none of them counts."""
    places: dict[ClientId, list[str]] = {}
    valid: dict[ClientId, Registration] = {}
    faults: dict[ClientId, str] = {}
    for file in files:
        for client_id in file.ids:
            places.setdefault(client_id, []).append(file.name)
            faults[client_id] = f"{file.name}: {file.problem}" if file.problem else ""
        valid.update({registration.id: registration for registration in file.registrations})
    for client_id, names in places.items():
        if len(names) > 1:
            faults[client_id] = f"described {len(names)} times, in {', '.join(sorted(set(names)))}: none of them counts"
    return [
        _invalid(client_id, fault, cluster) if fault else valid[client_id]
        for client_id, fault in sorted(faults.items())
    ]


def uid_of(client_id: ClientId, cluster: str) -> str:
    """Return the UID of a client that the API server gave none: always the same for the same name and cluster."""
    return str(uuid.uuid5(_UIDS, f"{cluster}/{client_id}"))


def _registrations(content: bytes, cluster: str) -> Iterator[Registration]:
    for document in documents(content):
        for resource in _resources(document):
            yield _registration(resource, cluster)


def _resources(document: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the TokenClients of a document. Resources of other groups stand beside them and are nobody's business."""
    kind = _kind(document)
    if kind in _LISTS:
        items = document.get("items")
        if not isinstance(items, list):
            raise NoTokenClientError("a list without items")
        for item in items:
            if _kind(item) in _LISTS:
                raise NoTokenClientError("a list within a list")
            yield from _resources(item)
    elif kind == (API_VERSION, "TokenClient"):
        yield document
    elif kind[0].partition("/")[0] == API_GROUP:
        raise NoTokenClientError(f"a document of {API_GROUP} that is no {API_VERSION} TokenClient")


def _kind(document: Any) -> tuple[str, str]:
    if not isinstance(document, dict):
        raise NoTokenClientError("a document that is no resource")
    version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        raise NoTokenClientError("a document without apiVersion and kind")
    return version, kind


def _registration(resource: Mapping[str, Any], cluster: str) -> Registration:
    client_id, metadata = _metadata(resource)
    if not resource.keys() <= _FIELDS:
        raise NoTokenClientError(f"{client_id} has fields beside metadata, spec and status")
    spec = resource.get("spec", {})
    given = {**metadata, "uid": uid_of(client_id, cluster), "generation": _generation(spec)}
    return read_registration({"metadata": given, "spec": spec})


def _metadata(resource: Mapping[str, Any]) -> tuple[ClientId, dict[str, Any]]:
    metadata = resource.get("metadata")
    if not isinstance(metadata, dict):
        raise NoTokenClientError("a TokenClient without metadata")
    client_id = ClientId(str(metadata.get("namespace")), str(metadata.get("name")))
    if not all(isinstance(metadata.get(key), str) for key in ("namespace", "name")) or not _is_named(client_id):
        raise NoTokenClientError("a TokenClient whose metadata.namespace or metadata.name is no DNS label")
    texts = {key: metadata.get(key) or {} for key in ("labels", "annotations")}
    if not metadata.keys() <= _METADATA or not all(map(_is_text_map, texts.values())):
        raise NoTokenClientError(f"{client_id} has metadata that is not known")
    return client_id, {"namespace": client_id.namespace, "name": client_id.name, **texts}


def _is_named(client_id: ClientId) -> bool:
    return all(DNS_LABEL.fullmatch(name) for name in (client_id.namespace, client_id.name))


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _generation(spec: Any) -> int:
    """Return a number that is another one for another specification, and the same after a restart."""
    digest = hashlib.sha256(orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)).digest()
    return int.from_bytes(digest[:6], "big") + 1  # within what JSON numbers hold; 0 is that of an unreadable one


def _broken(name: str, problem: str, before: File | None) -> File:
    return File(name, before.ids if before else (), problem=problem)


def _invalid(client_id: ClientId, message: str, cluster: str) -> Registration:
    fault = Fault(Reason.INVALID_REQUEST, message)
    return Registration(client_id, uid_of(client_id, cluster), 0, None, fault, {})

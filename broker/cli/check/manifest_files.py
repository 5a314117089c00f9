"""Reads Kubernetes manifests from files, as kubectl does: YAML or JSON, several to a file, lists among them."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from broker.cli.check.problem_lines import Problem
from broker.cli.errors import usage
from broker.cli.manifests import Manifest, title
from broker.cli.resources import Kind

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_WHOLE_CLUSTER = frozenset({"ClusterRole", "ClusterRoleBinding", "Namespace"})
_STDIN = Path("-")
_CLIENT = Kind.TOKEN_CLIENT.value.kind


@dataclass(frozen=True, slots=True)
class FromFile:
    """A manifest and where it stands."""

    file: str
    manifest: Manifest

    @property
    def thing(self) -> str:
        """The object, as a message names it."""
        return title(self.manifest)


def read_files(paths: Sequence[Path], namespace: str | None) -> tuple[list[FromFile], list[Problem]]:
    """Return the manifests of files and folders, and what cannot be read of them.

    ``namespace`` is that of objects that name none. Raises CommandError for a file that is not there.
    """
    found: list[FromFile] = []
    problems: list[Problem] = []
    for path in dict.fromkeys(file for named in paths for file in _files(named)):
        try:
            documents = list(yaml.safe_load_all(_text(path)))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            where = getattr(error, "problem_mark", None)
            line = f" near line {where.line + 1}" if where else ""
            problems.append(Problem(str(path), "", f"is no YAML{line}", "kubectl could not read it either"))
            continue
        objects = list(_objects(documents))
        found += [_placed(str(path), it, namespace) for it in objects if _named(it)]
        nameless = [it for it in objects if not _named(it)]
        problems += [Problem(str(path), it["kind"], "has no name", "write metadata.name") for it in nameless]
    return found, problems


def _files(path: Path) -> Iterable[Path]:
    if path.is_dir():
        return sorted(inner for inner in path.rglob("*") if inner.suffix in _SUFFIXES and inner.is_file())
    if path != _STDIN and not path.is_file():
        raise usage(f"there is no file {path}.")
    return [path]


def _text(path: Path) -> str:
    try:
        return sys.stdin.read() if path == _STDIN else path.read_text(encoding="utf-8")
    except OSError as error:
        raise usage(f"the file {path} cannot be read: {error.strerror}.") from None


def _objects(documents: Iterable[Any]) -> Iterator[Manifest]:
    """Yield what looks like objects of Kubernetes, and clients though they have no name.

    Other YAML, such as values of a chart or a Kustomization, is nobody's business here.
    """
    for document in documents:
        if not isinstance(document, dict):
            continue
        if isinstance(document.get("items"), list):
            yield from _objects(document["items"])
        elif document.get("kind") == _CLIENT or (isinstance(document.get("kind"), str) and _named(document)):
            yield document


def _named(document: Manifest) -> bool:
    return isinstance(mapping(document.get("metadata")).get("name"), str)


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a part of a manifest that should be a mapping; an empty one where it is something else."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return the mappings of what should be a list of them."""
    return [it for it in value if isinstance(it, dict)] if isinstance(value, list) else []


def _placed(file: str, manifest: Manifest, namespace: str | None) -> FromFile:
    if namespace and manifest["kind"] not in _WHOLE_CLUSTER:
        manifest = {**manifest, "metadata": {"namespace": namespace, **manifest["metadata"]}}
    return FromFile(file, manifest)

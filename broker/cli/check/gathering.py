"""What is wrong with the files of ``check -f`` as a whole, whatever stands in each. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence

from broker.cli.check.manifest_files import FromFile
from broker.cli.check.problem_lines import Problem
from broker.cli.resources import Kind
from broker.model.client import API_VERSION

_CLIENT = Kind.TOKEN_CLIENT.value.kind
_LOOKED_AT = frozenset(kind.value.kind for kind in Kind)


def gathered(files: Sequence[FromFile]) -> Iterator[Problem]:
    """Yield objects that are there twice, and clients of another version."""
    first: dict[tuple[str, ...], FromFile] = {}
    for found in files:
        before = first.setdefault(_key(found), found)
        if before is not found:
            what = f"is in {before.file} already" if before.file != found.file else "is there twice"
            yield Problem(found.file, found.thing, what, "keep one: what is applied last would win")
        version = found.manifest.get("apiVersion")
        if found.manifest["kind"] == _CLIENT and version != API_VERSION:
            yield Problem(found.file, found.thing, f"has the apiVersion {version}", f"write {API_VERSION}")


def without_clients(files: Sequence[FromFile], where: str) -> Iterator[Problem]:
    """Yield that there is no client in the files: nothing to check is no success."""
    if not any(it.manifest["kind"] == _CLIENT for it in files):
        yield Problem(where, "", f"holds no {_CLIENT}", "name the files with the clients, or their folder")


def passed_over(files: Sequence[FromFile]) -> str:
    """Return which objects nobody looks at here, such as ``2 Deployment, 1 TokenCleint``, or nothing."""
    kinds = Counter(kind for it in files if (kind := it.manifest["kind"]) not in _LOOKED_AT)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def _key(found: FromFile) -> tuple[str, ...]:
    group = str(found.manifest.get("apiVersion", "")).rpartition("/")[0]
    metadata = found.manifest["metadata"]
    return group, found.manifest["kind"], str(metadata.get("namespace", "")), metadata["name"]

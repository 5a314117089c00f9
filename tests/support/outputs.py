"""All that the brokers of a lab have written, wherever it is, so that it can be searched."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from pathlib import Path

from tests.support import witness
from tests.support.broker import AUDIT, CONFIG, METRICS, REPLIES
from tests.support.cluster import Cluster
from tests.support.lab import Lab
from tests.support.leaks import Output, Search
from tests.support.witness import Kind

RESOURCES = "TokenClients and Events"
REQUESTS = "requests to Kubernetes"
LABELS = "metadata in Vault"
_LISTS = ("/apis/tokenbroker.dev/v1alpha1/tokenclients", "/apis/events.k8s.io/v1/events")


async def leaks(lab: Lab, client_secrets: Iterable[str]) -> list[str]:
    """Return a line for each token or secret that can be read in a lab's outputs."""
    return Search(sought(lab, client_secrets)).leaks(await outputs(lab))


def sought(lab: Lab, client_secrets: Iterable[str]) -> dict[str, set[str]]:
    """Return every value that came about in a lab, by what it is."""
    values: dict[str, set[str]] = defaultdict(set)
    values |= {Kind.CLIENT_SECRET: set(client_secrets), Kind.ROOT: {lab.vault.root_token}}
    for kind, value in witness.tokens(lab.folder):
        values[kind].add(value)
    return values


async def outputs(lab: Lab) -> list[Output]:
    """Return logs, audit records, last scrapes and answers, and what is in the cluster and beside tokens in Vault."""
    return [
        *_files(lab.folder),
        Output(RESOURCES, await _resources(lab.cluster)),
        Output(REQUESTS, "\n".join(witness.written_to_kubernetes(lab.folder))),
        Output(LABELS, "\n".join(witness.labelled_in_vault(lab.folder))),
    ]


def homes(folder: Path) -> list[Path]:
    """Return the folder of each broker that was started in a lab's folder."""
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))


def log_of(home: Path) -> Path:
    """Return where a broker's standard output and error go."""
    return home.with_name(f"{home.name}.log")


def _files(folder: Path) -> Iterator[Output]:
    for home in homes(folder):
        files = (log_of(home), home / AUDIT, home / METRICS, home / REPLIES)
        yield from (Output(str(file.relative_to(folder)), file.read_text()) for file in files if file.exists())


async def _resources(cluster: Cluster) -> str:
    lists = [await cluster.request("GET", path) for path in _LISTS]
    there = [listed for status, listed in lists if status != HTTPStatus.NOT_FOUND]  # no CRD, no TokenClients
    return "\n".join(json.dumps(item) for listed in there for item in listed["items"])

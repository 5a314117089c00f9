"""What the two servers wrote down of every call, tokens included: their own audit logs, in a lab that asks for it.

So nobody has to hand in a token for it to be looked for: Kubernetes notes each one that it issues, and OpenBao each
one that it is shown, gives out or keeps.
"""

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

BROKER = "system:serviceaccount:tokenbroker:tokenbroker"
SHORTEST = 20
"""Nothing shorter is a token: tests write words like ``x`` to Vault, too."""

_WHOLE_MEGABYTES = 100_000
"""The API server goes on in another file after 100 MB, unless it is told: a whole run's traces are more than that."""

_POLICY = f"""
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {{level: RequestResponse, verbs: [create], resources: [{{group: "", resources: [serviceaccounts/token]}}]}}
- {{level: Metadata, resources: [{{group: authentication.k8s.io, resources: [tokenreviews]}}]}} # they are the tokens
- {{level: Request, users: ["{BROKER}"]}}
- {{level: Request, verbs: [create, update, patch], resources: [{{group: tokenbroker.dev}}]}}
- {{level: None}}
"""


class Kind(StrEnum):
    """What there is to keep to oneself."""

    CLIENT_SECRET = "a client's secret"
    ISSUED = "a token that Kubernetes issued"
    OWN = "the broker's own token"
    PROJECTED = "the broker's token for logging in to Vault"
    LOGIN = "a token of Vault's"
    KEPT = "a token that is kept in Vault"
    ROOT = "OpenBao's root token"


def kubernetes_flags(folder: Path) -> list[str]:
    """Write an audit policy, and return the API server's flags for it."""
    policy = folder / "kubernetes-audit-policy.yaml"
    policy.write_text(_POLICY)
    size = f"--audit-log-maxsize={_WHOLE_MEGABYTES}"
    return [f"--audit-policy-file={policy}", f"--audit-log-path={_kubernetes_log(folder)}", size]


def openbao_section(folder: Path) -> str:
    """Return what goes into OpenBao's configuration."""
    options = f'options {{\n    file_path = "{_openbao_log(folder)}"\n    log_raw = "true"\n  }}'
    return f'audit "file" "witness" {{\n  {options}\n}}\n'


def tokens(folder: Path) -> Iterator[tuple[Kind, str]]:
    """Yield all tokens that the two servers saw, some of them often."""
    for entry in _entries(_kubernetes_log(folder)):
        yield from _issued(entry)
    for entry in _entries(_openbao_log(folder)):
        yield from _seen_by_vault(entry)


def written_to_kubernetes(folder: Path) -> Iterator[str]:
    """Yield the broker's requests, and everybody's for TokenClients, without the tokens in the answers."""
    for entry in _entries(_kubernetes_log(folder)):
        entry.pop("responseObject", None)
        yield json.dumps(entry)


def token_requests(folder: Path, namespace: str) -> int:
    """Return for how many tokens of a namespace's accounts the broker has asked the API server."""
    asked = (entry for entry in _entries(_kubernetes_log(folder)) if entry["user"]["username"] == BROKER)
    return sum(
        entry["objectRef"].get("subresource") == "token" and entry["objectRef"]["namespace"] == namespace
        for entry in asked
    )


def labelled_in_vault(folder: Path) -> Iterator[str]:
    """Yield what was written next to tokens, where more people may read."""
    for entry in _entries(_openbao_log(folder)):
        request = entry["request"]
        if "/metadata/" in request["path"] and "data" in request:
            yield json.dumps([request["path"], request["data"]])


def _issued(entry: dict[str, Any]) -> Iterator[tuple[Kind, str]]:
    answer = entry.get("responseObject", {})
    if answer.get("kind") == "TokenRequest":  # a refusal is a Status
        account = "system:serviceaccount:{namespace}:{name}".format(**entry["objectRef"])
        own = Kind.PROJECTED if "vault" in answer["spec"]["audiences"] else Kind.OWN
        yield own if account == BROKER else Kind.ISSUED, answer["status"]["token"]


def _seen_by_vault(entry: dict[str, Any]) -> Iterator[tuple[Kind, str]]:
    request = entry["request"]
    sent = request.get("data") or {}
    found = (
        (Kind.PROJECTED, sent.get("jwt")),
        (Kind.LOGIN, entry.get("response", {}).get("auth", {}).get("client_token")),
        (Kind.KEPT, (sent.get("data") or {}).get("token") if "/data/" in request["path"] else None),
    )
    return ((kind, value) for kind, value in found if isinstance(value, str) and len(value) >= SHORTEST)


def _kubernetes_log(folder: Path) -> Path:
    return folder / "kubernetes-audit.log"


def _openbao_log(folder: Path) -> Path:
    return folder / "openbao-audit.log"


def _entries(log: Path) -> Iterator[dict[str, Any]]:
    if log.exists():
        with log.open() as lines:
            yield from (json.loads(line) for line in lines if line.endswith("\n"))  # the last one may be under way

"""A kubeconfig that holds a token, or fetches one. Pure.

Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

import base64
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import yaml

from broker.model.cluster import ClusterInfo
from broker.model.sensitive import Sensitive

_JWT = re.compile(r"[0-9A-Za-z._-]+", re.ASCII)
"""What is written in YAML as it is, between quotes (RFC 7515, 3.1)."""

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""libyaml's, where it is there: the other one would be half of what renewing a copy in Vault takes of the broker."""


def kubeconfig(cluster: ClusterInfo, namespace: str, user: str, token: Sensitive) -> str:
    """Return a complete kubeconfig, as YAML, with one context: ``user`` on ``cluster``, in ``namespace``.

    The result holds the token.
    """
    value = token.reveal()
    if not _JWT.fullmatch(value):
        return _kubeconfig(cluster, namespace, user, {"token": value})
    before, after = _around_the_token(cluster, namespace, user)
    return f"{before}{value}{after}"


@lru_cache(maxsize=1024)
def _around_the_token(cluster: ClusterInfo, namespace: str, user: str) -> tuple[str, str]:
    """Return what is the same in each of an account's kubeconfigs: writing YAML takes long, and callers wait for it.

    Within a value, quotes have backslashes: the key of the token is found by its own.
    """
    before, key, after = _kubeconfig(cluster, namespace, user, {"token": ""}).partition('"token": "')
    return before + key, after


def fetching_kubeconfig(cluster: ClusterInfo, namespace: str, user: str, command: Sequence[str]) -> str:
    """Return the same with no token in it: a program prints one (an ExecCredential) each time that it is needed.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
    """
    program = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": command[0],
        "args": list(command[1:]),
        "interactiveMode": "Never",
        "installHint": "It needs sh and curl, and the client's proof in the environment: docs/connect/kubectl.md.",
    }
    return _kubeconfig(cluster, namespace, user, {"exec": program})


def _kubeconfig(cluster: ClusterInfo, namespace: str, user: str, credentials: Mapping[str, Any]) -> str:
    return _yaml(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": cluster.name,
                    "cluster": {"server": cluster.server, "certificate-authority-data": ca_data(cluster)},
                }
            ],
            "users": [{"name": user, "user": dict(credentials)}],
            "contexts": [
                {
                    "name": cluster.name,
                    "context": {"cluster": cluster.name, "user": user, "namespace": namespace},
                }
            ],
            "current-context": cluster.name,
        }
    )


def ca_data(cluster: ClusterInfo) -> str:
    """Return the cluster's CA bundle as kubeconfigs and Argo CD carry it: base64 of the PEM text."""
    return base64.b64encode(cluster.ca_pem.encode()).decode()


def _yaml(document: dict[str, Any]) -> str:
    # Every string is quoted: parsers disagree on bare words such as null, 123, 1e3, yes, and all of them can
    # be names of namespaces.
    return yaml.dump(document, Dumper=_DUMPER, sort_keys=False, default_style='"', width=2**31 - 1)

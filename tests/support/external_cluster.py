"""Admin access to a cluster that somebody else runs, whatever way its kubeconfig logs in."""

import asyncio
import base64
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.kubebox import kubebox
from tests.support.kubectl import Kubectl, KubectlError
from tests.support.processes import until

LABEL = "tokenbroker.dev/tests"
CRD = "tokenclients.tokenbroker.dev"
_TOKEN_LIFETIME = "4h"
_REMOVAL_SECONDS = 300.0
_LET_GO = '{"metadata":{"finalizers":null}}'
_ACCOUNT = """
apiVersion: v1
kind: Namespace
metadata: {{name: {name}, labels: {{{label}: {name}}}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: admin, namespace: {name}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}, labels: {{{label}: {name}}}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}
subjects: [{{kind: ServiceAccount, name: admin, namespace: {name}}}]
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a client without kubectl needs."""

    server: str
    ca_file: Path
    token: str
    marks: Mapping[str, str]
    """Labels of what is removed on leaving, where namespaces have them."""


async def kubectl_command() -> list[str]:
    """Return the installed kubectl, or our own, which has to be built first."""
    installed = shutil.which("kubectl")
    return [installed] if installed else [str(await asyncio.to_thread(kubebox)), "kubectl"]


@asynccontextmanager
async def admin(kubectl: Kubectl, folder: Path) -> AsyncIterator[Found]:
    """Make an account that may do anything, and remove it on leaving, with all that is marked; raises KubectlError.

    Its name is its own: a test session may have two, and neither may end the other's.
    """
    server, ca_file = await _endpoint(kubectl, folder)
    name = f"tokenbroker-tests-{secrets.token_hex(4)}"
    await kubectl("apply", "-f", "-", input=_ACCOUNT.format(name=name, label=LABEL))
    try:
        token = await kubectl("create", "token", "admin", f"--namespace={name}", f"--duration={_TOKEN_LIFETIME}")
        yield Found(server, ca_file, token.strip(), {LABEL: name})
    finally:
        await _remove(kubectl, f"--selector={LABEL}={name}")


async def _remove(kubectl: Kubectl, selector: str) -> None:
    """Delete what is marked, with its TokenClients, of which no broker lets go any more."""
    await kubectl("delete", "namespaces,clusterrolebindings", selector, "--wait=false")

    async def gone() -> bool:
        left = await _names(kubectl, "namespaces", selector)
        for namespace, client in await _clients(kubectl) if left else ():
            if namespace in left:
                with suppress(KubectlError):  # it has gone by itself meanwhile
                    await kubectl("patch", "tokenclient", client, f"-n={namespace}", "--type=merge", f"-p={_LET_GO}")
        return not left

    await until(gone, what="what the tests made is gone", seconds=_REMOVAL_SECONDS)


async def _names(kubectl: Kubectl, kind: str, *options: str) -> list[str]:
    found = json.loads(await kubectl("get", kind, *options, "--output=json"))
    return [str(it["metadata"]["name"]) for it in found["items"]]


async def _clients(kubectl: Kubectl) -> list[tuple[str, str]]:
    if CRD not in await _names(kubectl, "customresourcedefinitions"):
        return []
    found = json.loads(await kubectl("get", CRD, "--all-namespaces", "--output=json"))
    return [(str(it["metadata"]["namespace"]), str(it["metadata"]["name"])) for it in found["items"]]


async def _endpoint(kubectl: Kubectl, folder: Path) -> tuple[str, Path]:
    view = json.loads(await kubectl("config", "view", "--minify", "--flatten", "--raw", "--output=json"))
    cluster = view["clusters"][0]["cluster"]
    ca_file = folder / "ca.crt"
    ca_file.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    return str(cluster["server"]), ca_file

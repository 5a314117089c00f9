"""Admin access to a cluster that somebody else runs, whatever way its kubeconfig logs in."""

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.kubebox import kubebox
from tests.support.kubectl import Kubectl

_NAME = "tokenbroker-tests"
_TOKEN_LIFETIME = "4h"
_ACCOUNT = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {_NAME}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: admin, namespace: {_NAME}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {_NAME}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}
subjects: [{{kind: ServiceAccount, name: admin, namespace: {_NAME}}}]
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a client without kubectl needs."""

    server: str
    ca_file: Path
    token: str


async def kubectl_command() -> list[str]:
    """Return the installed kubectl, or our own, which has to be built first."""
    installed = shutil.which("kubectl")
    return [installed] if installed else [str(await asyncio.to_thread(kubebox)), "kubectl"]


@asynccontextmanager
async def admin(kubectl: Kubectl, folder: Path) -> AsyncIterator[Found]:
    """Make an account that may do anything, and remove it on leaving; raises KubectlError."""
    server, ca_file = await _endpoint(kubectl, folder)
    await kubectl("apply", "-f", "-", input=_ACCOUNT)
    try:
        token = await kubectl("create", "token", "admin", f"--namespace={_NAME}", f"--duration={_TOKEN_LIFETIME}")
        yield Found(server, ca_file, token.strip())
    finally:
        await kubectl("delete", "--ignore-not-found", "--timeout=60s", "-f", "-", input=_ACCOUNT)


async def _endpoint(kubectl: Kubectl, folder: Path) -> tuple[str, Path]:
    view = json.loads(await kubectl("config", "view", "--minify", "--flatten", "--raw", "--output=json"))
    cluster = view["clusters"][0]["cluster"]
    ca_file = folder / "ca.crt"
    ca_file.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    return str(cluster["server"]), ca_file

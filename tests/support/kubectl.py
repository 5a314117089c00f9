"""The command-line client, run as a person would run it."""

import asyncio
import os
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml

_SECONDS = 60.0


class KubectlError(RuntimeError):
    """A command that failed; the message is the command and what it printed to stderr."""


class Kubectl:
    """kubectl with one kubeconfig; what it caches stays in ``cache``."""

    def __init__(self, command: Sequence[str], kubeconfig: Path, cache: Path) -> None:
        self._command = list(command)
        self._environment = {"KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(cache)}

    def with_kubeconfig(self, kubeconfig: Path) -> Self:
        """Return the same program with another kubeconfig."""
        return type(self)(self._command, kubeconfig, Path(self._environment["KUBECACHEDIR"]))

    async def __call__(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002  named as subprocess does
        """Run a command with ``input`` on stdin and return its stdout; raises KubectlError."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *arguments,
            env=os.environ | self._environment,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            async with asyncio.timeout(_SECONDS):
                output, errors = await process.communicate((input or "").encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {errors.decode().strip()}")
        return output.decode()


def write_kubeconfig(path: Path, *, server: str, ca_file: Path, token: str) -> Path:
    """Write a kubeconfig for one cluster and one bearer token, readable by its owner only."""
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(ca_file)}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content))
    return path

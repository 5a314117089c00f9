"""Three OpenBao servers that keep the same data: one is active, and when it goes a standby takes over.

A standby forwards what writes to the active one and answers reads by itself, from what it has got so far
(https://openbao.org/docs/concepts/consistency/). It also takes what is new over from the active one a moment late.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from tests.support.certificates import Authority, CertificateFiles
from tests.support.openbao import OpenBao, bao
from tests.support.processes import ProcessGroup, free_port, until
from tests.support.rest import Rest

NODES = 3
ACTIVE, STANDBY = 200, 429
"""What ``sys/health`` answers."""

_JOINED_SECONDS = 60.0


class OpenBaoCluster:
    """The servers by their numbers; each has its own address, and one authority vouches for all."""

    def __init__(self, nodes: list[OpenBao]) -> None:
        self.nodes = nodes

    @classmethod
    @asynccontextmanager
    async def start(cls, group: ProcessGroup | None = None) -> AsyncIterator[Self]:
        """Start them in ``group``, or one of their own; all vote, the first is active. Raises ProgramError."""
        async with ProcessGroup.joining(group) as processes, AsyncExitStack() as stack:
            folder = processes.folder / "openbao-cluster"
            folder.mkdir()
            authority = Authority.create(folder, "openbao-cluster-ca")
            certificate = authority.server("openbao")
            addresses = [f"https://127.0.0.1:{free_port()}" for _ in range(NODES)]
            nodes = []
            for number, address in enumerate(addresses):
                config = _write_config(folder, certificate, authority.file, number, addresses)
                program = processes.program(f"openbao-{number}", [bao(), "server", f"-config={config}"])
                rest = await stack.enter_async_context(Rest.open(address, authority.file))
                nodes.append(OpenBao(program, rest, address, authority.file))
                stack.push_async_callback(program.kill)
            cluster = cls(nodes)
            await cluster._form()
            yield cluster

    async def active(self) -> int:
        """Wait until one says that it is active, and return its number."""
        found: list[int] = []

        async def one() -> bool:
            found[:] = [number for number, node in enumerate(self.nodes) if await node.health() == ACTIVE]
            return len(found) == 1

        await until(one, what="one server is active", seconds=_JOINED_SECONDS)
        return found[0]

    async def step_down(self) -> None:
        """Have the active one give up; it may become active again, but not within ten seconds."""
        status, body = await self.nodes[await self.active()].api("PUT", "sys/step-down", {})
        if status != 204:
            raise RuntimeError(f"OpenBao answered {status} to sys/step-down: {body}")

    async def bring_back(self, number: int) -> None:
        """Start one again that was killed, with its data, and wait until it stands by or is active."""
        node = self.nodes[number]
        node.program.start()
        await self._join(node)

    async def _form(self) -> None:
        first, *others = self.nodes
        await first.boot()
        # A server has to be well for ten seconds, by default, before it votes; without votes nobody takes over.
        await first.api("POST", "sys/storage/raft/autopilot/configuration", {"server_stabilization_time": "1s"})
        for node in others:
            node.program.start()
            node.admit(first)
        await asyncio.gather(*map(self._join, others))
        await until(self._all_vote, what="all servers vote", seconds=_JOINED_SECONDS)

    async def _join(self, node: OpenBao) -> None:
        """Unseal one again and again until it has joined: it cannot be before it has found the others."""

        async def joined() -> bool:
            return await node.try_unseal() in {ACTIVE, STANDBY}

        await until(joined, what="a server joins", seconds=_JOINED_SECONDS, programs=[node.program], pause=0.2)

    async def _all_vote(self) -> bool:
        status, answer = await self.nodes[0].api("GET", "sys/storage/raft/configuration")
        servers = answer["data"]["config"]["servers"] if status == ACTIVE else []
        return [server["voter"] for server in servers] == [True] * NODES


def _write_config(
    folder: Path, certificate: CertificateFiles, ca_file: Path, number: int, addresses: list[str]
) -> Path:
    data, path = folder / f"data-{number}", folder / f"config-{number}.hcl"
    data.mkdir()
    others = "".join(
        f'  retry_join {{\n    leader_api_addr = "{address}"\n    leader_ca_cert_file = "{ca_file}"\n  }}\n'
        for address in addresses
        if address != addresses[number]
    )
    within = f"127.0.0.1:{free_port()}"
    path.write_text(f"""
storage "raft" {{
  path = "{data}"
  node_id = "node-{number}"
  performance_multiplier = 1
{others}}}
listener "tcp" {{
  address = "{addresses[number].removeprefix("https://")}"
  cluster_address = "{within}"
  tls_cert_file = "{certificate.certificate}"
  tls_key_file = "{certificate.key}"
}}
api_addr = "{addresses[number]}"
cluster_addr = "https://{within}"
""")
    return path

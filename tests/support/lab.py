"""Everything the broker needs around it: a cluster and a Vault that know each other."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.cluster import Cluster
from tests.support.openbao import OpenBao, configure_for_broker
from tests.support.processes import ProcessGroup


@dataclass(frozen=True, slots=True)
class Lab:
    """A running cluster and a Vault prepared for the broker; ``processes`` takes more programs."""

    cluster: Cluster
    vault: OpenBao
    processes: ProcessGroup

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        *,
        token_ttl: str = "20m",
        token_max_ttl: str = "24h",
        witnessed: bool = False,
        flags: Sequence[str] = (),
        own: bool = False,
    ) -> AsyncIterator[Self]:
        """Start both at once, and end everything on leaving, or when this process dies.

        The TTLs are those of the broker's Vault token. The servers of a ``witnessed`` one write down every token
        that they see (:mod:`tests.support.witness`), which costs them time. The API server gets ``flags``, and is
        our ``own`` where somebody else's would be harmed (:meth:`Cluster.start`).
        Raises ExceptionGroup of ProgramError and the like.
        """
        async with AsyncExitStack() as stack:
            processes = await stack.enter_async_context(ProcessGroup.start())
            async with asyncio.TaskGroup() as tasks:
                cluster = tasks.create_task(
                    stack.enter_async_context(Cluster.start(processes, witnessed=witnessed, flags=flags, own=own))
                )
                vault = tasks.create_task(stack.enter_async_context(OpenBao.start(processes, witnessed=witnessed)))
            lab = cls(cluster.result(), vault.result(), processes)
            await configure_for_broker(lab.vault, lab.cluster, token_ttl=token_ttl, token_max_ttl=token_max_ttl)
            yield lab

    @property
    def folder(self) -> Path:
        """The temporary folder: logs, keys and kubeconfigs."""
        return self.processes.folder

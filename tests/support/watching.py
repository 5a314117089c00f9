"""A Prometheus that watches a broker, with the alert rules that operators get."""

import asyncio
import copy
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import yaml

from tests.support.broker import BrokerProcess
from tests.support.lab import Lab
from tests.support.processes import Program, free_port, until
from tests.support.prometheus import prometheus as program

TARGET = {"namespace": "tokenbroker", "pod": "tokenbroker-0"}
"""Labels that the operator gives a target; a client's own ``namespace`` has to win."""

Labels = dict[str, str]
Samples = list[dict[str, Any]]


def hurried(rules: dict[str, Any]) -> dict[str, Any]:
    """Return rules that wait a second where they would wait a minute."""
    changed = copy.deepcopy(rules)
    for group in changed["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = re.sub(r"^(\d+)m$", r"\1s", rule["for"])
    return changed


@dataclass(frozen=True, slots=True)
class Watching:
    """The Prometheus, and where it answers."""

    running: Program
    url: str

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        lab: Lab,
        broker: BrokerProcess,
        rules: dict[str, Any],
        *,
        labels: Labels = TARGET,
        others: Sequence[tuple[BrokerProcess, Labels]] = (),
    ) -> AsyncIterator[Self]:
        """Start one that scrapes and judges each second, and wait until it has seen the broker; end it on leaving.

        It watches the ``others``, too; each target has the labels that the operator gives it.
        """
        binary = await asyncio.to_thread(program)
        folder = broker.folder / "prometheus"
        folder.mkdir()
        watched = [(broker, labels), *others]
        targets = [{"targets": [urlsplit(one.ops_url).netloc], "labels": given} for one, given in watched]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "tokenbroker", "honor_labels": True, "static_configs": targets}],
        }
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        command: list[str | Path] = [
            binary,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
        ]
        running = lab.processes.program("watching", [*command, f"--web.listen-address=127.0.0.1:{port}"])
        running.start()
        watching = cls(running, f"http://127.0.0.1:{port}")
        try:
            sees = partial(watching._sees, len(watched))
            await until(sees, what="Prometheus has seen the broker", seconds=60, programs=[running])
            yield watching
        finally:
            await running.kill()

    async def query(self, expression: str) -> Samples:
        """Return the samples of an expression now. Raises ValueError where Prometheus does not take it."""
        answer = await self._get("query", {"query": expression})
        if answer["status"] != "success":
            raise ValueError(f"{expression}: {answer['error']}")
        samples: Samples = answer["data"]["result"]
        return samples

    async def firing(self) -> list[dict[str, Labels]]:
        """Return the alerts that fire now: ``labels`` and ``annotations`` of each."""
        alerts = (await self._get("alerts", {}))["data"]["alerts"]
        return [alert for alert in alerts if alert["state"] == "firing"]

    async def _sees(self, brokers: int) -> bool:
        try:
            return len(await self.query('tokenbroker_build_info{job="tokenbroker"}')) == brokers
        except aiohttp.ClientError:
            return False

    async def _get(self, what: str, parameters: dict[str, str]) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/api/v1/{what}", params=parameters) as answer,
        ):
            return await answer.json()

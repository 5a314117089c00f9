"""Prometheus, outside the cluster, configured as docs/connect/prometheus.md says."""

import asyncio
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio

from tests.support.broker import BrokerProcess, Tenant
from tests.support.certificates import Authority
from tests.support.command import Ended, command_with
from tests.support.lab import Lab
from tests.support.pages import blocks, moved
from tests.support.processes import Program, free_port, until
from tests.support.prometheus import prometheus as program

PAGE = "connect/prometheus.md"
SCRAPE_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus, the broker that it asks, and the folder that is its /etc/prometheus."""

    lab: Lab
    broker: BrokerProcess
    running: Program
    url: str
    folder: Path

    async def query(self, path: str) -> Any:
        """Return the data of an answer of its API, or None while there is none."""
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/api/v1/{path}") as answer:
                return (await answer.json())["data"] if answer.status == 200 else None
        except aiohttp.ClientError:
            return None

    async def value(self, expression: str) -> float:
        """Return the value of an expression with one result; -1 while it has none."""
        data = await self.query(f"query?query={expression}")
        return float(data["result"][0]["value"][1]) if data and data["result"] else -1.0

    async def discovered(self) -> bool:
        """Tell whether it knows the Service ``kubernetes-like`` from the API server."""
        data = await self.query("targets?state=active") or {"activeTargets": []}
        names = [target["discoveredLabels"].get("__meta_kubernetes_service_name") for target in data["activeTargets"]]
        return "kubernetes-like" in names

    async def scraped(self) -> bool:
        """Tell whether it reads the API server's own metrics."""
        return await self.value('up{job="kubernetes-apiserver"}') == 1

    async def issued(self) -> float:
        """Return how many tokens the broker has handed to it."""
        start = 'tokenbroker_tokens_issued_total{client="prometheus",grant="default",namespace="monitoring"} '
        lines = (await self.broker.metrics()).splitlines()
        return next((float(line.removeprefix(start)) for line in lines if line.startswith(start)), 0.0)


async def _typed(lab: Lab, block: str, folder: Path) -> list[Ended | str]:
    """Run the commands of a block as an admin of the cluster who sits in ``folder``."""
    done: list[Ended | str] = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        if words[0] == "tokenbroker":
            ended = await command_with(lab.cluster.kubeconfig, *(_below(word, folder) for word in words[1:]))
            assert ended.code == 0, ended.stderr
            done.append(ended)
        elif words[0] == "mv":
            (folder / words[1]).replace(Path(words[2]))
        else:
            done.append(await lab.cluster.kubectl(*words[1:]))
    return done


def _below(word: str, folder: Path) -> str:
    return str(folder / word) if word.endswith(".secret") else word


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def prometheus(installed: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    """Register it, write its configuration, both as on the page, and run it against a broker with TLS."""
    binary = await asyncio.to_thread(program)
    folder = tmp_path_factory.mktemp("prometheus")
    cluster = installed.cluster
    await Tenant.create(cluster, "monitoring")
    service = {"metadata": {"name": "kubernetes-like"}, "spec": {"ports": [{"port": 9999}]}}
    await cluster.request("POST", "/api/v1/namespaces/monitoring/services", service)
    await _typed(installed, blocks(PAGE, "sh")[0], folder)
    authority = Authority.create(folder, "broker-ca")
    files = authority.server("broker")
    authority.file.replace(folder / "broker-ca.crt")
    (folder / "cluster-ca.crt").write_bytes(cluster.ca_file.read_bytes())
    listen = {"port": free_port(), "tls": {"cert_file": str(files.certificate), "key_file": str(files.key)}}
    async with BrokerProcess.start(installed, "for-prometheus", listen=listen) as broker:
        places = {
            "https://broker.example:8443": f"https://127.0.0.1:{listen['port']}",
            "kubernetes.example:6443": str(urlsplit(cluster.server).netloc),
            "/etc/prometheus": str(folder),
        }
        config = folder / "prometheus.yml"
        (scrapes,) = blocks(PAGE, "yaml")
        config.write_text(f"global: {{scrape_interval: {SCRAPE_SECONDS}s}}\n" + moved(scrapes, places))
        port = free_port()
        command: list[str | Path] = [binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=debug"]
        running = installed.processes.program("prometheus", command)
        running.start()
        try:
            yield Prometheus(installed, broker, running, f"http://127.0.0.1:{port}", folder)
        finally:
            await running.kill()


async def test_it_discovers_services_and_scrapes(prometheus: Prometheus) -> None:
    """Both jobs of the page work, with tokens that it fetched by itself."""
    await until(prometheus.discovered, what="the Service is discovered", seconds=60, programs=[prometheus.running])
    await until(prometheus.scraped, what="the API server is scraped", seconds=60, programs=[prometheus.running])

    assert await prometheus.issued() >= 1
    assert await prometheus.value("count(apiserver_request_total) > 0") > 0


async def test_its_secret_is_replaced_without_a_failed_scrape(prometheus: Prometheus) -> None:
    """The three lines of the page: it fetches with the new secret, and no scrape fails on the way."""
    await until(prometheus.scraped, what="the API server is scraped", seconds=60, programs=[prometheus.running])
    issued = await prometheus.issued()
    replace = moved(blocks(PAGE, "sh")[1], {"/etc/prometheus": str(prometheus.folder)}).splitlines(keepends=True)
    await _typed(prometheus.lab, "".join(replace[:2]), prometheus.folder)

    async def fetched() -> bool:
        return await prometheus.issued() > issued

    await until(fetched, what="it has asked with the new secret", seconds=60, programs=[prometheus.running])
    await _typed(prometheus.lab, replace[2], prometheus.folder)
    scrapes = await prometheus.value('scrape_samples_scraped{job="kubernetes-apiserver"}')

    assert scrapes > 0
    assert await prometheus.value('min_over_time(up{job="kubernetes-apiserver"}[2m])') == 1
    assert await prometheus.value("prometheus_sd_kubernetes_failures_total or vector(0)") == 0

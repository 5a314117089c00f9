"""The official Kubernetes client for Python with the kubeconfigs that the broker gives out."""

import asyncio
import os
from pathlib import Path

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.support.broker import BrokerProcess, Tenant
from tests.support.federated import Federated


def use(kubeconfig: Path, namespace: str) -> tuple[int, int]:
    """Return how many pods it lists, and the status of what the account may not."""
    with config.new_client_from_config(str(kubeconfig)) as api:
        core = client.CoreV1Api(api)
        pods = core.list_namespaced_pod(namespace)
        with pytest.raises(ApiException) as refused:
            core.list_namespaced_secret(namespace)
    return len(pods.items), refused.value.status


async def test_kubeconfig_with_a_token(broker: BrokerProcess, tenant: Tenant, tmp_path: Path) -> None:
    """Endpoint, CA and token are understood as they came; the API server refuses what the account may not."""
    caller = await tenant.ready_client("caller")
    reply = await broker.call("POST", "/v1/tokens", {"format": "kubeconfig"}, auth=caller.auth)
    file = tmp_path / "kubeconfig"
    file.write_text(reply.body)

    assert await asyncio.to_thread(use, file, tenant.namespace) == (0, 403)


async def test_kubeconfig_that_fetches_its_token(
    federated: Federated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client runs the same program as kubectl does."""
    reply = await federated.ask(federated.jwt(), format="kubeconfig", exec=True)
    file = tmp_path / "kubeconfig"
    file.write_text(reply.body)
    for name in [name for name in os.environ if name.startswith(("TOKENBROKER_", "XDG_CACHE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TOKENBROKER_JWT", federated.jwt())

    assert await asyncio.to_thread(use, file, "federated") == (0, 403)

"""The shapes of a token, each read by what it is for."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from kubernetes_asyncio import client, config

from tests.support.broker import BrokerProcess, Registered, Tenant, basic
from tests.support.kubectl import KubectlError
from tests.support.lab import Lab


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reader(installed: Lab, broker: BrokerProcess) -> Registered:
    """Register a client of a namespace whose name YAML would take for a number."""
    assert broker.url
    tenant = await Tenant.create(installed.cluster, "1e3")
    return await tenant.ready_client("reader")


async def _ask(broker: BrokerProcess, reader: Registered, form: str) -> tuple[str, str]:
    """Return content type and text of an answer."""
    headers = {"Authorization": basic(*reader.auth)}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{broker.url}/v1/tokens", json={"format": form}, headers=headers) as answer,
    ):
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.content_type, await answer.text()


async def test_kubeconfig_works_in_kubectl(
    broker: BrokerProcess, reader: Registered, installed: Lab, tmp_path: Path
) -> None:
    """Saved as it came: endpoint, CA, token and the account's namespace are in it."""
    content_type, text = await _ask(broker, reader, "kubeconfig")
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    listed = await installed.cluster.kubectl("get", "pods", f"--kubeconfig={file}")

    assert content_type == "application/yaml"
    assert "No resources found in 1e3 namespace" in listed or listed == ""
    with pytest.raises(KubectlError, match="cannot list resource"):
        await installed.cluster.kubectl("get", "secrets", f"--kubeconfig={file}")


async def test_kubeconfig_works_in_the_python_client(broker: BrokerProcess, reader: Registered, tmp_path: Path) -> None:
    """Another reader of kubeconfigs, which parses YAML its own way."""
    _, text = await _ask(broker, reader, "kubeconfig")
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    settings = client.Configuration()
    loader: Any = await config.load_kube_config(str(file), client_configuration=settings)
    async with client.ApiClient(settings) as api:
        pods = await client.CoreV1Api(api).list_namespaced_pod("1e3")

    assert loader.current_context["context"]["namespace"] == "1e3"
    assert pods.items == []


async def test_exec_credential_works_as_a_plugin(
    broker: BrokerProcess, reader: Registered, installed: Lab, tmp_path: Path
) -> None:
    """Kubectl starts curl, and takes its answer for the credential."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {reader.id} password {reader.secret}\n")
    netrc.chmod(0o600)
    arguments = ["-sS", "--fail", "--netrc-file", str(netrc), "-H", "Content-Type: application/json"]
    arguments += ["-d", '{"format": "exec-credential"}', f"{broker.url}/v1/tokens"]
    plugin: dict[str, Any] = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "curl",
        "args": arguments,
        "interactiveMode": "Never",
    }
    cluster = {"server": installed.cluster.server, "certificate-authority": str(installed.cluster.ca_file)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"exec": plugin}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "1e3"}}],
        "current-context": "x",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(document))
    name = await installed.cluster.kubectl(
        "auth", "whoami", f"--kubeconfig={file}", "-o=jsonpath={.status.userInfo.username}"
    )

    assert name == "system:serviceaccount:1e3:reader"


async def test_argocd_cluster_is_flat_and_complete(broker: BrokerProcess, reader: Registered, installed: Lab) -> None:
    """Three texts, as a Secret's stringData wants them; the token in config is a good one."""
    _, text = await _ask(broker, reader, "argocd-cluster")
    data = json.loads(text)
    inner = json.loads(data["config"])
    status, _ = await installed.cluster.request("GET", "/api/v1/namespaces/1e3/pods", token=inner["bearerToken"])

    assert set(data) == {"name", "server", "config"}
    assert all(isinstance(value, str) for value in data.values())
    assert inner["tlsClientConfig"]["insecure"] is False
    assert status == 200


@pytest.mark.parametrize("asked", [{"format": "xml"}, {"format": ""}, {"format": "token", "deliver": "vault"}])
async def test_format_that_makes_no_sense_is_refused(
    broker: BrokerProcess, reader: Registered, asked: dict[str, str]
) -> None:
    """Before anything is issued."""
    before = broker.audit_file.read_text().count('"token.issued"')
    reply = await broker.call("POST", "/v1/tokens", asked, auth=reader.auth)

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")
    assert broker.audit_file.read_text().count('"token.issued"') == before

"""Whose word the broker takes for the cluster's authority: the operator's, never a namespace's."""

from base64 import b64encode

from tests.support.broker import BrokerProcess, Tenant

POISON = "-----BEGIN CERTIFICATE-----\ncGxhbnRlZA==\n-----END CERTIFICATE-----\n"


async def test_a_namespace_editor_poisons_kube_root_ca(broker: BrokerProcess, tenant: Tenant) -> None:
    """Who may edit ConfigMaps could name an authority of his own there, and read what clients send to his server."""
    client = await tenant.ready_client("web")
    await broker.until_ready(client.id)
    path = f"/api/v1/namespaces/{tenant.namespace}/configmaps/kube-root-ca.crt"
    await tenant.cluster.request("PATCH", path, {"data": {"ca.crt": POISON}})
    reply = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
    kubeconfig = await broker.call("POST", "/v1/tokens", {"format": "kubeconfig"}, auth=client.auth)

    assert reply.body["cluster"]["ca"] == tenant.cluster.ca_file.read_text()
    assert reply.body["cluster"]["server"] == tenant.cluster.server
    shown = kubeconfig.body["clusters"][0]["cluster"] if isinstance(kubeconfig.body, dict) else kubeconfig.body
    assert b64encode(tenant.cluster.ca_file.read_bytes()).decode() in str(shown)

"""The shapes in which a token leaves the broker: each is what some tool reads as it is."""

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import orjson
from aiohttp import web

from broker.errors import BrokerError, Reason
from broker.http.json_answer import PLAIN, JsonAnswer
from broker.model.argocd import argocd_config
from broker.model.client import Client
from broker.model.cluster import ClusterInfo
from broker.model.decision import Allowed, Ask
from broker.model.kubeconfig import fetching_kubeconfig, kubeconfig
from broker.model.times import timestamp
from broker.services.mint import Issued

TOKEN = "token"  # noqa: S105 - a format, not a token
KUBECONFIG = "kubeconfig"
EXEC_CREDENTIAL = "exec-credential"
FORMATS = (TOKEN, KUBECONFIG, EXEC_CREDENTIAL, "argocd-cluster")
SCRIPT = "exec_credential.sh"

_YAML = {"Content-Type": "application/yaml", **PLAIN}

Render = Callable[[Issued, str], web.Response]


class Formats:
    """Renders what was issued, with what its user has to know about the cluster."""

    def __init__(self, cluster: ClusterInfo, public_url: str | None) -> None:
        self._info = cluster
        self._public_url = public_url
        self._script = resources.files("broker.http").joinpath(SCRIPT).read_text(encoding="ascii")
        self._cluster = {"name": cluster.name, "server": cluster.server, "ca": cluster.ca_pem}
        self.render: Mapping[str, Render] = dict(
            zip(FORMATS, (self.token, self.kubeconfig, self.exec_credential, self.argocd_cluster), strict=True)
        )

    def token(self, issued: Issued, request_id: str) -> web.Response:
        """Render everything there is to say, as JSON."""
        token, allowed = issued.token, issued.allowed
        return JsonAnswer(
            {
                "id": issued.id,
                "token": token.value.reveal(),
                "expirationTimestamp": timestamp(token.expires_at),
                "ttl": ttl(allowed.ttl_seconds, issued.granted_seconds, reused=issued.reused),
                "grant": allowed.grant.name,
                "audience": allowed.audience,
                "subject": issued.subject,
                "cluster": self._cluster,
                "request_id": request_id,
            }
        )

    def kubeconfig(self, issued: Issued, _request_id: str) -> web.Response:
        """Render a kubeconfig with the account's namespace as the current one."""
        grant = issued.allowed.grant
        text = kubeconfig(self._info, issued.namespace, grant.service_account, issued.token.value)
        return web.Response(body=text.encode(), headers=_YAML)

    def fetching_kubeconfig(self, client: Client, ask: Ask, allowed: Allowed) -> web.Response:
        """Render a kubeconfig that holds no token, and a program of sh and curl that fetches one.

        Raises BrokerError(delivery_not_configured) where the broker does not know under which URL.
        """
        if self._public_url is None:
            raise BrokerError(
                Reason.DELIVERY_NOT_CONFIGURED,
                "The broker does not know its own URL, which the kubeconfig has to call: "
                "its operator sets listen.public_url.",
            )
        said = {"client": str(client.id), "grant": allowed.grant.name, "ttl": ask.ttl, "audience": ask.audience}
        request = {name: value for name, value in said.items() if value is not None} | {"format": EXEC_CREDENTIAL}
        arguments = (self._public_url, str(client.id), orjson.dumps(request).decode())
        command = ("sh", "-c", self._script, "tokenbroker", *arguments)
        account = allowed.grant.service_account
        text = fetching_kubeconfig(self._info, client.id.namespace, account, command)
        return web.Response(body=text.encode(), headers=_YAML)

    def exec_credential(self, issued: Issued, _request_id: str) -> web.Response:
        """Render what kubectl expects of a credential plugin.

        Source: https://kubernetes.io/docs/reference/config-api/client-authentication.v1/
        """
        token = issued.token
        status = {"token": token.value.reveal(), "expirationTimestamp": timestamp(token.expires_at)}
        return JsonAnswer({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})

    def argocd_cluster(self, issued: Issued, _request_id: str) -> web.Response:
        """Render the data of an Argo CD cluster Secret."""
        config = argocd_config(self._info, issued.token.value).reveal()
        return JsonAnswer({"name": self._info.name, "server": self._info.server, "config": config})


def ttl(requested: int, granted: int, *, reused: bool = False) -> dict[str, Any]:
    """Return what was asked for and what was given, in seconds, with the reason where they differ."""
    reason = "reused" if reused else "shortened_by_api_server" if granted < requested else None
    return {"requestedSeconds": requested, "grantedSeconds": granted, "reason": reason}

"""The data of one version in Vault: the same token in the shapes that its readers know. Pure."""

from broker.model.argocd import argocd_config
from broker.model.cluster import ClusterInfo
from broker.model.kubeconfig import kubeconfig
from broker.model.sensitive import Sensitive
from broker.model.times import timestamp
from broker.model.token import MintedToken


def vault_secret(
    cluster: ClusterInfo, namespace: str, service_account: str, token: MintedToken
) -> dict[str, Sensitive | str]:
    """Return the keys and values of one version.

    ``token``, ``ca.crt`` and ``namespace`` are those of a service account's Secret; ``server``, ``name`` and
    ``config`` those of an Argo CD cluster
    (https://argo-cd.readthedocs.io/en/stable/operator-manual/declarative-setup/#clusters);
    ``kubeconfig`` is a whole file; ``expirationTimestamp`` is in UTC, as RFC 3339 writes it.
    """
    return {
        "token": token.value,
        "ca.crt": cluster.ca_pem,
        "namespace": namespace,
        "server": cluster.server,
        "name": cluster.name,
        "config": argocd_config(cluster, token.value),
        "kubeconfig": Sensitive(kubeconfig(cluster, namespace, service_account, token.value)),
        "expirationTimestamp": timestamp(token.expires_at),
    }

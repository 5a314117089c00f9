"""A cluster as Argo CD reads it. Pure.

Source: https://argo-cd.readthedocs.io/en/stable/operator-manual/declarative-setup/#clusters
"""

import json

from broker.model.cluster import ClusterInfo
from broker.model.kubeconfig import ca_data
from broker.model.sensitive import Sensitive


def argocd_config(cluster: ClusterInfo, token: Sensitive) -> Sensitive:
    """Return the value of the key ``config``: JSON that holds the token and the cluster's CA."""
    tls = {"insecure": False, "caData": ca_data(cluster)}
    return Sensitive(json.dumps({"bearerToken": token.reveal(), "tlsClientConfig": tls}))

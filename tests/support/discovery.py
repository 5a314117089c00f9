"""A small cluster's discovery documents, as an API server writes them."""

from collections.abc import Sequence
from typing import Any

from broker.model.api_resources import Catalogue, parse_catalogue

ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CHANGES = ("get", "patch", "update")


def resource(
    plural: str,
    kind: str,
    short: Sequence[str] = (),
    *,
    namespaced: bool = True,
    verbs: Sequence[str] = ALL,
    **subresources: Sequence[str],
) -> dict[str, Any]:
    """Return a resource of a discovery document; keyword arguments are subresources and their verbs."""
    document: dict[str, Any] = {
        "resource": plural,
        "responseKind": {"group": "", "version": "", "kind": kind},
        "scope": "Namespaced" if namespaced else "Cluster",
        "singularResource": kind.lower(),
        "verbs": list(verbs),
    }
    if short:
        document["shortNames"] = list(short)
    if subresources:
        document["subresources"] = [{"subresource": name, "verbs": list(known)} for name, known in subresources.items()]
    return document


def group(name: str, **versions: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    """Return a group with its versions, the preferred one first; None for one whose server does not answer."""
    listed = [
        {"version": version, "freshness": "Stale"}
        if resources is None
        else {"version": version, "resources": list(resources), "freshness": "Current"}
        for version, resources in versions.items()
    ]
    return {"metadata": {"name": name} if name else {"creationTimestamp": None}, "versions": listed}


def document(*groups: dict[str, Any]) -> dict[str, Any]:
    """Return a whole discovery document."""
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": list(groups)}


CORE = document(
    group(
        "",
        v1=[
            resource("configmaps", "ConfigMap", ["cm"]),
            resource("events", "Event", ["ev"]),
            resource("namespaces", "Namespace", ["ns"], namespaced=False, status=CHANGES, finalize=("update",)),
            resource("nodes", "Node", ["no"], namespaced=False, proxy=("create", "get"), status=CHANGES),
            resource("pods", "Pod", ["po"], log=("get",), exec=("create", "get"), status=CHANGES),
            resource("secrets", "Secret"),
            resource("serviceaccounts", "ServiceAccount", ["sa"], token=("create",)),
        ],
    )
)
GROUPS = document(
    group("apps", v1=[resource("deployments", "Deployment", ["deploy"], scale=CHANGES)]),
    group("events.k8s.io", v1=[resource("events", "Event", ["ev"])]),
    group("authorization.k8s.io", v1=[resource("subjectaccessreviews", "SubjectAccessReview", verbs=("create",))]),
    group("autoscaling", v2=[resource("horizontalpodautoscalers", "HorizontalPodAutoscaler", ["hpa"])], v1=[]),
    group(
        "batch",
        v1=[resource("jobs", "Job"), resource("cronjobs", "CronJob", ["cj"])],
        v1beta1=[resource("cronjobs", "CronJob", ["cj"], verbs=("get", "spin"), status=CHANGES)],
    ),
    group("rbac.authorization.k8s.io", v1=[resource("roles", "Role"), resource("clusterroles", "ClusterRole")]),
    group("shop.example.com", v1=[resource("jobs", "Job"), resource("orders", "Order", ["po", "ord"])]),
)


def catalogue(*more: dict[str, Any]) -> Catalogue:
    """Return the catalogue of the small cluster, and more groups."""
    return parse_catalogue(CORE, GROUPS, document(*more))

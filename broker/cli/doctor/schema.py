"""Is the CustomResourceDefinition that of this release? Pure."""

from broker.cli.doctor.comparison import differences
from broker.cli.doctor.findings import Finding, ok, problem, unknown
from broker.cli.manifests import Manifest

NAME = "tokenclients.tokenbroker.dev"
_APPLY = "kubectl apply -f deploy/base/crd.yaml   # of this release"
_SHOWN = 5


def diagnose(shipped: Manifest, found: Manifest | None, refusal: str) -> Finding:
    """Return whether TokenClients are known, and by the schema of this release."""
    identity = "crd.schema"
    if refusal:
        return unknown(identity, f"you may not look at CustomResourceDefinitions ({refusal})")
    if found is None:
        return problem(identity, f"there is no {NAME}: the cluster knows no TokenClients", _APPLY)
    conditions = {it["type"]: it["status"] for it in found.get("status", {}).get("conditions", ())}
    if conditions.get("Established") != "True":
        return problem(identity, f"{NAME} is there, but the API server does not serve it", _APPLY)
    wanted, spec = shipped["spec"], found["spec"]
    places = [
        place for part in ("group", "scope", "versions") for place in differences(wanted[part], spec.get(part), part)
    ]
    if places:
        more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
        text = f"{NAME} is not that of this release: {', '.join(places[:_SHOWN])}{more}"
        return problem(identity, text, _APPLY)
    versions = ", ".join(it["name"] for it in wanted["versions"])
    return ok(identity, f"{NAME} ({versions}) is that of this release")

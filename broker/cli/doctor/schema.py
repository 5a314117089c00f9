"""Is the CustomResourceDefinition that of this release? Pure."""

from broker.cli.doctor.comparison import differences
from broker.cli.doctor.findings import Finding, ok, problem, unknown
from broker.cli.manifests import Manifest

NAME = "tokenclients.tokenbroker.dev"
_APPLY = "kubectl apply -f deploy/base/crd.yaml   # of this release"
_LEFT = "kubectl get tokenclients -A   # what is left: the broker has to run, so that it can let go of them"
_SAME_NAMES = "kubectl get crd | grep tokenbroker.dev   # delete the one that has these names"
_SHOWN = 5


def diagnose(shipped: Manifest, found: Manifest | None, refusal: str) -> Finding:
    """Return whether TokenClients are known, and by the schema of this release."""
    identity = "crd.schema"
    if refusal:
        return unknown(identity, f"you may not look at CustomResourceDefinitions ({refusal})")
    if found is None:
        return problem(identity, f"there is no {NAME}: the cluster knows no TokenClients", _APPLY)
    if unserved := _unserved(found):
        return problem(identity, *unserved)
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


def _unserved(found: Manifest) -> tuple[str, str] | None:
    """Return why the API server does not serve it, and what mends that, by the conditions that it sets."""
    conditions = {it["type"]: it for it in found.get("status", {}).get("conditions") or ()}
    states = {name: it["status"] for name, it in conditions.items()}
    if states.get("Terminating") == "True":
        said = conditions["Terminating"]["message"]
        return f"{NAME} is being deleted, and all TokenClients with it: {said}", f"{_LEFT}\n{_APPLY}"
    if states.get("NamesAccepted") == "False":
        said = conditions["NamesAccepted"]["message"]
        return f"{NAME} is there, but the API server does not serve it: {said}", _SAME_NAMES
    if states.get("Established") != "True":
        return f"{NAME} is there, but the API server does not serve it", _APPLY
    return None

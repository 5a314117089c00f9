"""Are the admission policies there that hold the broker, and do they hold this one? Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from broker.cli.doctor.comparison import differences
from broker.cli.doctor.findings import Finding, ok, problem, unknown
from broker.cli.manifests import BrokerAccount, Manifest
from broker.model.account import account_user

POLICIES = (
    "tokenbroker-tokens",
    "tokenbroker-secrets",
    "tokenbroker-clients",
    "tokenbroker-registration",
    "tokenbroker-anchors",
)
"""Each is a ValidatingAdmissionPolicy and a binding of the same name."""

APPLY = "kubectl apply -k deploy/overlays/YOURS   # this release's manifests, with transformers/account"
_SHIPPED_ACCOUNT = account_user("tokenbroker", "tokenbroker")
_OPERATORS_CHOICE = {"audiences", "maximumSeconds"}
"""Variables that an overlay sets."""


@dataclass(frozen=True, slots=True)
class Found:
    """A policy and its binding as they are in the cluster, or None. ``refusal`` says why they may not be read."""

    policy: Manifest | None
    binding: Manifest | None
    refusal: str = ""


def diagnose(name: str, shipped: Manifest, binding: Manifest, found: Found, broker: BrokerAccount) -> Finding:
    """Return whether a policy is there as this release ships it, for this broker."""
    identity = f"policy.{name}"
    if found.refusal:
        return unknown(identity, f"you may not look at the policies ({found.refusal})")
    wrong = list(_problems(shipped, binding, found, broker))
    if wrong:
        return problem(identity, f"{name}: {'; '.join(wrong)}", APPLY)
    return ok(identity, f"{name} is in force{_choices(found.policy or {})}")


def _problems(shipped: Manifest, binding: Manifest, found: Found, broker: BrokerAccount) -> Iterator[str]:
    if found.policy is None or found.binding is None:
        yield f"the {'policy' if found.policy is None else 'binding'} is missing, so it refuses nothing"
        return
    wanted, spec = rendered(shipped["spec"], broker), found.policy["spec"]
    if spec.get("failurePolicy") != "Fail":
        yield f"its failurePolicy is {spec.get('failurePolicy')}, so it lets pass what it cannot judge"
    if found.binding["spec"].get("validationActions") != ["Deny"]:
        yield f"its binding does {found.binding['spec'].get('validationActions')} and not only Deny"
    if wanted.get("matchConditions", []) != spec.get("matchConditions", []):
        yield f"it is not matched to {_username(broker)}, or not as this release does it"
    places = [*differences(wanted, _chosen(wanted, spec), "spec"), *_binding_places(binding, found.binding)]
    rest = [it for it in places if not it.startswith(("spec.failurePolicy", "spec.matchConditions"))]
    if rest:
        yield f"it is not that of this release: {', '.join(rest[:5])}"


def _binding_places(shipped: Manifest, found: Manifest) -> list[str]:
    places = differences(shipped["spec"], found["spec"], "binding.spec")
    return [it for it in places if not it.startswith("binding.spec.validationActions")]


def rendered(part: Any, broker: BrokerAccount) -> Any:
    """Return a part of a shipped policy with the broker's own account and namespace in their places."""
    if isinstance(part, dict):
        if part.get("name") == "own" and part.get("expression") == "'tokenbroker'":
            return {**part, "expression": f"'{broker.namespace}'"}
        return {key: rendered(value, broker) for key, value in part.items()}
    if isinstance(part, list):
        return [rendered(value, broker) for value in part]
    return part.replace(_SHIPPED_ACCOUNT, _username(broker)) if isinstance(part, str) else part


def _chosen(wanted: Manifest, spec: Manifest) -> Manifest:
    """Return what was found, with what an overlay may choose as it was wanted."""
    shipped = {it["name"]: it for it in wanted.get("variables", ())}
    variables = [
        shipped[it["name"]] if it["name"] in _OPERATORS_CHOICE & shipped.keys() else it
        for it in spec.get("variables", ())
    ]
    return {**spec, "variables": variables} if variables else spec


def _choices(policy: Manifest) -> str:
    chosen = [it for it in policy["spec"].get("variables", ()) if it["name"] in _OPERATORS_CHOICE]
    return "".join(f"; {it['name']}: {it['expression']}" for it in chosen)


def _username(broker: BrokerAccount) -> str:
    return account_user(broker.namespace, broker.name)


def enforced(policy: str, status: int, message: str) -> Finding:
    """Return whether a policy refused what was tried in the broker's name (a dry run)."""
    identity = f"policy.{policy}.tried"
    if f"ValidatingAdmissionPolicy '{policy}'" in message:
        return ok(identity, f"{policy} refuses what it must")
    if "cannot impersonate" in message:
        return unknown(identity, "you may not impersonate the broker's account, so nothing was tried in its name")
    if status < 300:  # noqa: PLR2004 - a success
        return problem(identity, f"what {policy} must refuse is let pass", APPLY)
    return unknown(identity, f"what {policy} must refuse was refused by something else ({message})")

"""Why a client gets no tokens, from its TokenClient and what surrounds it. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from broker.cli.check.minting import needed_actions
from broker.cli.doctor.actions import Wish
from broker.cli.doctor.findings import Finding, ok, problem, unknown
from broker.cli.doctor.meanings import Meaning, condition_meaning
from broker.cli.doctor.objects import Seen
from broker.cli.doctor.rights import Verdict
from broker.cli.manifests import Manifest
from broker.model.client import ClientId
from broker.model.limits import OPT_IN, OPTED_IN


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """What was found out. ``resource`` is None where there is no such TokenClient.

    ``grant`` is empty for all of them. ``accounts`` and ``mint`` are by the name of the account; what the broker
    has to be allowed is in ``mint`` in the order of :func:`needed`.
    """

    id: ClientId
    grant: str
    resource: Manifest | None
    namespace: Seen
    accounts: Mapping[str, Seen]
    mint: Mapping[str, tuple[Verdict, ...]]


def needed(namespace: str, account: str) -> tuple[Wish, ...]:
    """Return what the broker has to be allowed to do for an account's tokens."""
    return tuple(Wish(action, namespace) for action in needed_actions(account))


def grants(resource: Manifest, wanted: str) -> list[Manifest]:
    """Return the grants that are asked about: the one of that name, or all."""
    return [it for it in resource["spec"]["grants"] if wanted in {"", it["name"]}]


def diagnose(facts: ClientFacts, meanings: Mapping[str, Meaning]) -> Iterator[Finding]:
    """Yield what keeps a client from its tokens."""
    if facts.resource is None:
        text = f"there is no TokenClient {facts.id}"
        yield problem("client.exists", text, f"tokenbroker client add {facts.id.name} -n {facts.id.namespace} …")
        return
    yield ok("client.exists", f"the TokenClient {facts.id} is there")
    yield _seen_by_broker(facts.resource)
    yield from _conditions(facts.id, facts.resource, meanings)
    yield _opted_in(facts)
    if not grants(facts.resource, facts.grant):
        names = ", ".join(it["name"] for it in facts.resource["spec"]["grants"])
        yield problem("client.grant", f"it has no grant {facts.grant}", f"name one of its grants: {names}")
    for name, account in facts.accounts.items():
        yield _account(facts.id.namespace, name, account)
        yield _mint(facts, name)


def _seen_by_broker(resource: Manifest) -> Finding:
    observed = resource.get("status", {}).get("observedGeneration", 0)
    if observed >= resource["metadata"]["generation"]:
        return ok("client.observed", "the broker has looked at it as it is now")
    text = "the broker has not looked at it as it is now: it does not run, or cannot see TokenClients"
    mend = "kubectl logs -n tokenbroker deployment/tokenbroker\ntokenbroker doctor --install"
    return problem("client.observed", text, mend)


def _conditions(client: ClientId, resource: Manifest, meanings: Mapping[str, Meaning]) -> Iterator[Finding]:
    for it in resource.get("status", {}).get("conditions", []):
        identity = f"client.{it['type']}"
        if it["status"] == "True":
            yield ok(identity, it["message"])
            continue
        meaning = condition_meaning(it["reason"], meanings)
        said = f"{it['reason']} since {it['lastTransitionTime']}: {it['message']}"
        text = f"{said} {meaning.text}" if meaning else said
        mend = meaning.line(client) if meaning else f"tokenbroker client show {client}"
        yield problem(identity, text, mend) if it["status"] == "False" else unknown(identity, text, mend)


def _opted_in(facts: ClientFacts) -> Finding:
    identity, namespace = "client.namespace", facts.id.namespace
    if facts.namespace.refusal:
        return unknown(identity, f"you may not look at the namespace {namespace} ({facts.namespace.refusal})")
    if (facts.namespace.metadata or {}).get("labels", {}).get(OPT_IN) == OPTED_IN:
        return ok(identity, f"the namespace {namespace} lets the broker mint ({OPT_IN}={OPTED_IN})")
    text = f"the namespace {namespace} is not labelled {OPT_IN}={OPTED_IN}, and the broker mints nowhere else"
    return problem(identity, text, f"kubectl label namespace {namespace} {OPT_IN}={OPTED_IN} --overwrite")


def _account(namespace: str, name: str, account: Seen) -> Finding:
    identity = "grant.account"
    if account.refusal:
        return unknown(identity, f"you may not look at the ServiceAccount {namespace}/{name} ({account.refusal})")
    if account.metadata is None:
        command = f"kubectl create serviceaccount {name} -n {namespace}"
        return problem(identity, f"the ServiceAccount {namespace}/{name} does not exist", command)
    return ok(identity, f"the ServiceAccount {namespace}/{name} is there")


def _mint(facts: ClientFacts, account: str) -> Finding:
    identity, verdicts = "grant.mint", facts.mint[account]
    wishes = needed(facts.id.namespace, account)
    mend = f"tokenbroker check rbac -n {facts.id.namespace} -o yaml | kubectl apply -f -"
    refusal = next((it.refusal for it in verdicts if it.refusal), "")
    if refusal:
        return unknown(identity, f"you may not ask what the broker may do ({refusal})", mend)
    denied = [str(wish.action) for wish, verdict in zip(wishes, verdicts, strict=True) if not verdict.allowed]
    if denied:
        return problem(identity, f"the broker's account may not {', nor '.join(denied)} in {facts.id.namespace}", mend)
    return ok(identity, f"the broker may mint for {facts.id.namespace}/{account}, and make and delete anchors")

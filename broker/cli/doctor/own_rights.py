"""May the broker's account do what this release gives it, and nothing else? Pure."""

from collections.abc import Iterator, Sequence

from broker.cli.check.minting import Needs, missing, subjects, too_much
from broker.cli.check.rbac import Binding, Rbac, rights
from broker.cli.doctor.findings import Finding, ok, problem
from broker.cli.doctor.policies import APPLY
from broker.cli.manifests import BrokerAccount


def diagnose(wanted: Sequence[Needs], found: Rbac, shipped: Rbac, broker: BrokerAccount) -> Iterator[Finding]:
    """Yield what the account lacks and what it has too much."""
    lacking = [text for it in shipped.bound_to(subjects(broker)[0]) for text in _lacking(it, found, shipped)]
    if lacking:
        yield problem("rights.missing", f"the broker's account may not {'; '.join(lacking)}", APPLY)
    else:
        yield ok("rights.missing", "the broker's account holds all that this release gives it")
    surplus = list(too_much(wanted, found, broker, shipped))
    for it in surplus:
        text = f"the broker's account may {it.what} {it.binding.where}, by {it.binding.kind} {it.binding.name}"
        yield problem("rights.too-much", text, it.mend)
    if not surplus:
        yield ok("rights.too-much", "the broker's account holds nothing else")
    clients = dict.fromkeys(f"{it['metadata']['namespace']}" for it in missing(wanted, found, broker))
    if clients:
        text = f"the broker may not mint for clients in {', '.join(clients)}"
        yield problem("rights.mint", text, "tokenbroker check rbac -o yaml | kubectl apply -f -")
    else:
        yield ok("rights.mint", "the broker may mint for every client that is registered")


def _lacking(wanted: Binding, found: Rbac, shipped: Rbac) -> Iterator[str]:
    held = frozenset(
        right
        for it in found.bindings
        if it.namespace in {"", wanted.namespace} and set(wanted.subjects) & set(it.subjects)
        for right in rights(found.rules.get(it.role, ()))
    )
    rest = rights(shipped.rules.get(wanted.role, ())) - held
    if rest:
        yield f"{', '.join(map(str, sorted(rest)))} {wanted.where}"

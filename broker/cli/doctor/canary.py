"""Does the broker issue anything at all? Where a policy that its canary tries is missing, it does not.

The policies are looked at here, too: the conditions of a TokenClient say so minutes later, at its next look.
"""

from collections.abc import AsyncIterator, Iterable, Sequence

from broker.cli import release
from broker.cli.cluster import Cluster
from broker.cli.doctor import install_facts, policies
from broker.cli.doctor.findings import Finding, State, ok, problem, unknown
from broker.cli.manifests import BrokerAccount
from broker.model.policies import TRIED

IDENTITY = "broker.policies"


async def check(cluster: Cluster, broker: BrokerAccount) -> Finding:
    """Return whether the broker's canary finds what it wants."""
    if not (await install_facts.configuration(cluster, broker)).policies_required:
        return ok(IDENTITY, "the broker was told that there are no policies (admission.policies: absent), and issues")
    return conclude([it async for it in look(cluster, broker, TRIED)])


async def look(cluster: Cluster, broker: BrokerAccount, names: Sequence[str]) -> AsyncIterator[Finding]:
    """Yield how policies are, and what two of them refuse in the broker's name."""
    for name in names:
        shipped = release.manifest("ValidatingAdmissionPolicy", name)
        binding = release.manifest("ValidatingAdmissionPolicyBinding", name)
        found = await install_facts.policy(cluster, name)
        yield policies.diagnose(name, shipped, binding, found, broker)
    outcome = await install_facts.try_in_the_brokers_name(cluster, broker)
    for name, (status, message) in outcome.items():
        yield policies.enforced(name, status, message)


def conclude(found: Iterable[Finding]) -> Finding:
    """Return one finding for all: what a policy did when it was tried counts before how it looks."""
    known = {it.id: it for it in found}
    decisive = []
    for name in TRIED:
        looks, tried = known[f"policy.{name}"], known[f"policy.{name}.tried"]
        decisive.append(looks if tried.state is State.UNKNOWN else tried)
    texts = {state: "; ".join(it.text for it in decisive if it.state is state) for state in State}
    if texts[State.PROBLEM]:
        text = f"the broker issues nothing while its canary misses a policy (policy_missing): {texts[State.PROBLEM]}"
        return problem(IDENTITY, text, policies.APPLY)
    if texts[State.UNKNOWN]:
        text = f"whether the broker misses a policy, and so issues nothing: {texts[State.UNKNOWN]}"
        return unknown(IDENTITY, text, "tokenbroker doctor --install   # for its operators, who see the policies")
    return ok(IDENTITY, "the policies without which the broker issues nothing are in force")

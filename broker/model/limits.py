"""What the operator allows in a namespace, whoever writes TokenClients there. Pure.

With GitOps one strong account writes all TokenClients, so that admission sees one writer for every namespace: these
bounds are the operator's own word, in the broker's configuration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from broker.model.client import Grant, Revocation
from broker.model.duration import format_duration
from broker.model.rate import Rate

OPT_IN, OPTED_IN = "tokenbroker.dev/clients", "enabled"
"""The label of namespaces in which the broker mints; admission holds it to the same (deploy/base/policies)."""

UNBOUND, UNBOUND_ALLOWED = "tokenbroker.dev/unbound-tokens", "allowed"
"""The label of namespaces in which admission lets the broker mint tokens that only expire."""


@dataclass(frozen=True, slots=True)
class NamespaceLimits:
    """The bounds. ``proofs`` lists the kinds that count, as TokenClients name them; None: all of them.

    ``max_ttl_seconds`` holds for tokens in Vault, too. ``opted_in`` is what the namespace's label says. ``rate`` is how
    many tokens each client may be handed out, whatever its own rate; None: no bound.
    """

    max_ttl_seconds: int | None = None
    proofs: frozenset[str] | None = None
    strong_accounts: bool = False
    unbound_tokens: bool = False
    opted_in: bool = True
    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class LimitRule:
    """Limits, and for which namespaces: those of these names or, where there are none, with all of these labels."""

    limits: NamespaceLimits
    names: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)

    def matches(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Tell whether it is for a namespace. Without names and labels it is for all."""
        if self.names and namespace not in self.names:
            return False
        return all(labels.get(name) == value for name, value in self.labels.items())


def limits_for(rules: Sequence[LimitRule], namespace: str, labels: Mapping[str, str]) -> NamespaceLimits:
    """Return the limits of the first rule that matches, or those of a broker without any."""
    return next((rule.limits for rule in rules if rule.matches(namespace, labels)), NamespaceLimits())


def labelled(limits: NamespaceLimits, labels: Mapping[str, str]) -> NamespaceLimits:
    """Return the limits with what the namespace's labels say: it has to opt in, and unbound tokens take both words."""
    unbound = limits.unbound_tokens and labels.get(UNBOUND) == UNBOUND_ALLOWED
    return replace(limits, opted_in=labels.get(OPT_IN) == OPTED_IN, unbound_tokens=unbound)


def exceeded(grant: Grant, limits: NamespaceLimits) -> str | None:
    """Return in which way a grant wants more than the operator allows, or None."""
    if limits.max_ttl_seconds is not None:
        longest = max(grant.ttl.max_seconds, grant.vault.ttl_seconds if grant.vault else 0)
        if longest > limits.max_ttl_seconds:
            most = format_duration(limits.max_ttl_seconds)
            return (
                f"The broker's operator allows tokens of {most} at most in this namespace: lower ttl.max and vault.ttl."
            )
    if grant.revocation is Revocation.NONE and not limits.unbound_tokens:
        return (
            "The broker's operator does not allow revocation: None in this namespace: use Grant or Token, or ask for "
            f"unbound_tokens in the broker's limits and the label {UNBOUND}={UNBOUND_ALLOWED} on the namespace."
        )
    return None

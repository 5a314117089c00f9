"""Joins what the operator allows in a namespace: the configuration's word, and the namespace's labels."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from broker.config import Config, LimitConfig
from broker.model.limits import OPT_IN, OPTED_IN, LimitRule, NamespaceLimits, limits_for


def namespace_limits(
    config: Config, labels: Callable[[str], Mapping[str, str]] | None
) -> Callable[[str], NamespaceLimits]:
    """Return what tells the limits of a namespace.

    ``labels`` is None where the broker may not know them (clients in a directory): then a namespace counts as opted
    in, and admission has the last word on it.
    """
    rules = tuple(map(_rule, config.limits))

    def limits(namespace: str) -> NamespaceLimits:
        if labels is None:
            return limits_for(rules, namespace, {})
        known = labels(namespace)
        return replace(limits_for(rules, namespace, known), opted_in=known.get(OPT_IN) == OPTED_IN)

    return limits


def _rule(limit: LimitConfig) -> LimitRule:
    limits = NamespaceLimits(limit.max_ttl, _kinds(limit), limit.strong_accounts, limit.unbound_tokens)
    return LimitRule(limits, frozenset(limit.namespaces), limit.namespace_labels)


def _kinds(limit: LimitConfig) -> frozenset[str] | None:
    return None if limit.proofs is None else frozenset(map(str, limit.proofs))

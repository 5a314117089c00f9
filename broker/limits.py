"""Joins what the operator allows in a namespace: the configuration's word, and the namespace's labels."""

from collections.abc import Callable, Mapping

from broker.config import Config
from broker.config_limits import LimitConfig, RateConfig
from broker.model.limits import LimitRule, NamespaceLimits, labelled, limits_for
from broker.model.rate import Rate


def namespace_limits(
    config: Config, labels: Callable[[str], Mapping[str, str]] | None
) -> Callable[[str], NamespaceLimits]:
    """Return what tells the limits of a namespace.

    ``labels`` is None where the broker may not know them (clients in a directory): then a namespace counts as opted
    in, and admission has the last word on it, and on unbound tokens.
    """
    rules = tuple(map(_rule, config.limits))
    found: dict[str, tuple[Mapping[str, str], NamespaceLimits]] = {}

    def limits(namespace: str) -> NamespaceLimits:
        if labels is None:
            return limits_for(rules, namespace, {})
        known = labels(namespace)
        before = found.get(namespace)
        if before is None or before[0] is not known:  # it is asked on each request, and changes hardly ever
            before = found[namespace] = (known, labelled(limits_for(rules, namespace, known), known))
        return before[1]

    return limits


def _rule(limit: LimitConfig) -> LimitRule:
    limits = NamespaceLimits(
        limit.max_ttl, _kinds(limit), limit.strong_accounts, limit.unbound_tokens, rate=_rate(limit.rate)
    )
    return LimitRule(limits, frozenset(limit.namespaces), limit.namespace_labels)


def _rate(rate: RateConfig | None) -> Rate | None:
    return None if rate is None else Rate.of(rate.per_minute, rate.burst)


def _kinds(limit: LimitConfig) -> frozenset[str] | None:
    return None if limit.proofs is None else frozenset(map(str, limit.proofs))

"""May this client have this token? Pure: values in, a value out."""

from dataclasses import dataclass
from datetime import datetime

from broker.errors import Limits, Reason
from broker.model.client import Client, Grant
from broker.model.duration import format_duration, parse_duration

MIN_TTL_SECONDS = 600
"""The shortest life that a TokenRequest may ask for (kubernetes: TokenRequestSpec.expirationSeconds)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds whoever writes TokenClients. ``reserved_audiences`` can never be granted."""

    broker_namespace: str
    api_audience: str
    reserved_audiences: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ask:
    """What a caller asked for; None where it left the choice to the grant."""

    grant: str | None = None
    ttl: str | None = None
    audience: str | None = None


@dataclass(frozen=True, slots=True)
class Allowed:
    """The grant, with the audience and life that the token shall have."""

    grant: Grant
    audience: str
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Denied:
    """Why not, in words for the caller."""

    reason: Reason
    detail: str
    limits: Limits | None = None


def decide(client: Client, ask: Ask, rules: Rules, now: datetime) -> Allowed | Denied:
    """Decide on a request of an authenticated client."""
    refusal = standing(client, now)
    if refusal is not None:
        return refusal
    grant = _choose_grant(client, ask.grant)
    if isinstance(grant, Denied):
        return grant
    forbidden = grant_problem(client.id.namespace, grant, rules)
    if forbidden is not None:
        return Denied(Reason.GRANT_FORBIDDEN, forbidden)
    return _bounds(grant, ask, rules)


def decide_delivery(client: Client, ask: Ask, rules: Rules, now: datetime) -> Allowed | Denied:
    """Decide on a request to put a fresh token into Vault: its audience and life are the grant's own."""
    decision = decide(client, ask, rules, now)
    if isinstance(decision, Denied):
        return decision
    if ask.ttl is not None or ask.audience is not None:
        return Denied(
            Reason.INVALID_REQUEST,
            "A token delivered to Vault has the audience and TTL of the grant; leave both out.",
        )
    if decision.grant.vault is None:
        return Denied(Reason.DELIVERY_NOT_CONFIGURED, "This grant is not kept in Vault.")
    return decision


def standing(client: Client, now: datetime) -> Denied | None:
    """Return why the client may have nothing at all at the moment, or None."""
    if client.suspended:
        return Denied(Reason.CLIENT_SUSPENDED, "This client is suspended. Ask its owner to resume it.")
    if client.not_after is not None and now >= client.not_after:
        return Denied(Reason.CLIENT_EXPIRED, f"This client's registration ended at {client.not_after.isoformat()}.")
    return None


def grant_problem(namespace: str, grant: Grant, rules: Rules) -> str | None:
    """Return why a grant may not exist, whoever wrote it, or None."""
    if namespace.startswith("kube-"):
        return "Accounts in kube-* namespaces are never granted."
    if namespace == rules.broker_namespace:
        return "Accounts in the broker's own namespace are never granted."
    if grant.service_account == "default":
        return "The account 'default' is never granted: make an account for the client."
    reserved = rules.reserved_audiences.intersection(grant.audiences)
    if reserved:
        return f"The audience {min(reserved)!r} is the broker's own way to log in and is never granted."
    return None


def allowed_audiences(grant: Grant, rules: Rules) -> tuple[str, ...]:
    """Return what the grant's tokens may be for, the default first."""
    return grant.audiences or (rules.api_audience,)


def limits(grant: Grant, rules: Rules) -> Limits:
    """Return the bounds of the grant, as a refusal shows them."""
    return Limits(MIN_TTL_SECONDS, grant.ttl.max_seconds, allowed_audiences(grant, rules))


def _choose_grant(client: Client, name: str | None) -> Grant | Denied:
    if name is None:
        if len(client.grants) == 1:
            return client.grants[0]
        names = ", ".join(grant.name for grant in client.grants)
        return Denied(Reason.GRANT_REQUIRED, f"This client has several grants; name one of: {names}.")
    return client.grant(name) or Denied(Reason.GRANT_UNKNOWN, "This client has no grant of that name.")


def _bounds(grant: Grant, ask: Ask, rules: Rules) -> Allowed | Denied:
    bounds = limits(grant, rules)
    audience = bounds.audiences[0] if ask.audience is None else ask.audience
    if audience not in bounds.audiences:
        return Denied(Reason.AUDIENCE_NOT_ALLOWED, "The grant does not allow tokens for that audience.", bounds)
    ttl = _ttl(grant, ask.ttl)
    if ttl is None:
        longest = format_duration(bounds.max_ttl_seconds)
        shortest = format_duration(bounds.min_ttl_seconds)
        return Denied(
            Reason.TTL_OUT_OF_RANGE,
            f"The grant allows a TTL from {shortest} to {longest}, written as a duration such as 15m.",
            bounds,
        )
    return Allowed(grant, audience, ttl)


def _ttl(grant: Grant, text: str | None) -> int | None:
    if text is None:
        return grant.ttl.default_seconds
    try:
        seconds = parse_duration(text)
    except ValueError:
        return None
    return seconds if MIN_TTL_SECONDS <= seconds <= grant.ttl.max_seconds else None

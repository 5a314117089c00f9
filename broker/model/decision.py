"""May this client have this token? Pure: values in, a value out."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from broker.errors import Limits, Reason
from broker.model.client import Client, Grant
from broker.model.duration import format_duration, parse_duration
from broker.model.limits import OPT_IN, OPTED_IN, NamespaceLimits, exceeded

MIN_TTL_SECONDS = 600
"""The shortest life that a TokenRequest may ask for (kubernetes: TokenRequestSpec.expirationSeconds)."""

MAX_TTL_SECONDS = 24 * 3600
"""The longest that a grant may allow; admission holds the broker to it (deploy/base/policies)."""

MAX_REUSE_SECONDS = MIN_TTL_SECONDS // 2
"""The longest that the same token may be handed out again: whoever gets it has at least half of any life left."""


def _no_limits(_namespace: str) -> NamespaceLimits:
    return NamespaceLimits()


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds whoever writes TokenClients. ``reserved_audiences`` can never be granted.

    ``limits`` returns what the operator allows in a namespace now: it may change with the namespace's labels.
    """

    broker_namespace: str
    api_audience: str
    reserved_audiences: frozenset[str] = frozenset()
    limits: Callable[[str], NamespaceLimits] = _no_limits


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


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was decided on the way, and how it came out: in words for the client itself."""

    name: str
    detail: str
    denied: Denied | None = None


@dataclass(slots=True)
class _Draft:
    """A decision in the making: what is asked, and what is settled so far."""

    client: Client
    ask: Ask
    rules: Rules
    now: datetime
    grant: Grant | None = None
    audience: str = ""
    ttl_seconds: int = 0

    def chosen(self) -> Grant:
        if self.grant is None:
            raise RuntimeError("no grant was chosen yet")
        return self.grant


def decide(client: Client, ask: Ask, rules: Rules, now: datetime) -> Allowed | Denied:
    """Decide on a request of an authenticated client."""
    return _decide(_Draft(client, ask, rules, now), _STEPS)


def decide_delivery(client: Client, ask: Ask, rules: Rules, now: datetime) -> Allowed | Denied:
    """Decide on a request to put a fresh token into Vault: its audience and life are the grant's own."""
    return _decide(_Draft(client, ask, rules, now), _DELIVERY_STEPS)


def explain(client: Client, ask: Ask, rules: Rules, now: datetime, *, delivery: bool) -> tuple[Step, ...]:
    """Return what :func:`decide` or :func:`decide_delivery` goes through, up to what it denies.

    Audience and TTL of a copy in Vault are the grant's own: nothing is decided about them.
    """
    draft = _Draft(client, ask, rules, now)
    taken = []
    for name, settle, tell in (*_CHOICE, _DELIVERY) if delivery else _STEPS:
        denied = settle(draft)
        taken.append(Step(name, tell(draft) if denied is None else denied.detail, denied))
        if denied is not None:
            break
    return tuple(taken)


def _decide(draft: _Draft, steps: "_Steps") -> Allowed | Denied:
    for _, settle, _ in steps:
        denied = settle(draft)
        if denied is not None:
            return denied
    return Allowed(draft.chosen(), draft.audience, draft.ttl_seconds)


def standing(client: Client, now: datetime) -> Denied | None:
    """Return why the client may have nothing at all at the moment, or None."""
    if client.suspended:
        return Denied(Reason.CLIENT_SUSPENDED, "This client is suspended. Ask its owner to resume it.")
    if client.not_after is not None and now >= client.not_after:
        return Denied(Reason.CLIENT_EXPIRED, f"This client's registration ended at {client.not_after.isoformat()}.")
    return None


def grant_problem(namespace: str, grant: Grant, rules: Rules) -> Denied | None:
    """Return why a grant may not exist, whoever wrote it, or None."""
    forbidden = _forbidden(namespace, grant, rules)
    if forbidden is not None:
        return Denied(Reason.GRANT_FORBIDDEN, forbidden)
    allowed = rules.limits(namespace)
    if not allowed.opted_in:
        return Denied(
            Reason.GRANT_FORBIDDEN,
            "The namespace is not opted in: ask the cluster's operator for "
            f"`kubectl label namespace {namespace} {OPT_IN}={OPTED_IN}`.",
        )
    beyond = exceeded(grant, allowed)
    return Denied(Reason.LIMITS_EXCEEDED, beyond) if beyond else None


def _forbidden(namespace: str, grant: Grant, rules: Rules) -> str | None:
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


def _settle_standing(draft: _Draft) -> Denied | None:
    return standing(draft.client, draft.now)


def _tell_standing(draft: _Draft) -> str:
    end = draft.client.not_after
    return "The client is not suspended, and " + (f"registered until {end.isoformat()}." if end else "has no end.")


def _settle_grant(draft: _Draft) -> Denied | None:
    client, name = draft.client, draft.ask.grant
    if name is None and len(client.grants) > 1:
        names = ", ".join(grant.name for grant in client.grants)
        return Denied(Reason.GRANT_REQUIRED, f"This client has several grants; name one of: {names}.")
    draft.grant = client.grants[0] if name is None else client.grant(name)
    return None if draft.grant else Denied(Reason.GRANT_UNKNOWN, "This client has no grant of that name.")


def _tell_grant(draft: _Draft) -> str:
    grant = draft.chosen()
    named = "as asked for" if draft.ask.grant else "the only one"
    return f"{grant.name}, {named}: the account {grant.service_account}."


def _settle_permission(draft: _Draft) -> Denied | None:
    return grant_problem(draft.client.id.namespace, draft.chosen(), draft.rules)


def _tell_permission(_draft: _Draft) -> str:
    return "A grant of this kind is allowed."


def _settle_delivery(draft: _Draft) -> Denied | None:
    if draft.ask.ttl is not None or draft.ask.audience is not None:
        return Denied(
            Reason.INVALID_REQUEST,
            "A token delivered to Vault has the audience and TTL of the grant; leave both out.",
        )
    if draft.chosen().vault is None:
        return Denied(Reason.DELIVERY_NOT_CONFIGURED, "This grant is not kept in Vault.")
    return None


def _tell_delivery(_draft: _Draft) -> str:
    return "The grant is kept in Vault."


def _settle_audience(draft: _Draft) -> Denied | None:
    allowed = allowed_audiences(draft.chosen(), draft.rules)
    draft.audience = allowed[0] if draft.ask.audience is None else draft.ask.audience
    if draft.audience not in allowed:
        bounds = limits(draft.chosen(), draft.rules)
        return Denied(Reason.AUDIENCE_NOT_ALLOWED, "The grant does not allow tokens for that audience.", bounds)
    return None


def _tell_audience(draft: _Draft) -> str:
    return f"{draft.audience}, {'as asked for' if draft.ask.audience else 'the first of the grant'}."


def _settle_ttl(draft: _Draft) -> Denied | None:
    ttl = _ttl(draft.chosen(), draft.ask.ttl)
    if ttl is None:
        bounds = limits(draft.chosen(), draft.rules)
        longest = format_duration(bounds.max_ttl_seconds)
        shortest = format_duration(bounds.min_ttl_seconds)
        return Denied(
            Reason.TTL_OUT_OF_RANGE,
            f"The grant allows a TTL from {shortest} to {longest}, written as a duration such as 15m.",
            bounds,
        )
    draft.ttl_seconds = ttl
    return None


def _tell_ttl(draft: _Draft) -> str:
    how = "as asked for" if draft.ask.ttl else "the default of the grant"
    return f"{format_duration(draft.ttl_seconds)}, {how}; the API server may shorten it."


def _ttl(grant: Grant, text: str | None) -> int | None:
    if text is None:
        return grant.ttl.default_seconds
    try:
        seconds = parse_duration(text)
    except ValueError:
        return None
    return seconds if MIN_TTL_SECONDS <= seconds <= grant.ttl.max_seconds else None


_Steps = tuple[tuple[str, Callable[[_Draft], Denied | None], Callable[[_Draft], str]], ...]
"""Each with its name, what settles it, and what it comes to in words."""

_CHOICE: _Steps = (
    ("standing", _settle_standing, _tell_standing),
    ("grant", _settle_grant, _tell_grant),
    ("permission", _settle_permission, _tell_permission),
)
_BOUNDS: _Steps = (("audience", _settle_audience, _tell_audience), ("ttl", _settle_ttl, _tell_ttl))
_STEPS = _CHOICE + _BOUNDS
_DELIVERY = ("delivery", _settle_delivery, _tell_delivery)
_DELIVERY_STEPS = (*_CHOICE, _DELIVERY, *_BOUNDS)

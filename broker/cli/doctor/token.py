"""Why a token is refused (401), from what is known about it and the cluster. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from broker.cli.doctor.clocks import clocks
from broker.cli.doctor.findings import Finding, ok, problem, unknown
from broker.cli.doctor.objects import Seen
from broker.cli.times import both
from broker.cli.token.jwt import UnverifiedToken

_AGAIN = "tokenbroker token get   # or kubectl create token {account} -n {namespace}"
OTHER_CLUSTER = "use the kubeconfig of the cluster that issued it: --kubeconfig FILE or --context NAME"
BOUND_KINDS = ("secret", "pod", "node")


class Signature(Enum):
    """What the cluster's published keys say; NOT_CHECKED where the user may not read them."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN_KEY = "unknown key"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Review:
    """A TokenReview's answer. ``refusal`` is why the user got none."""

    authenticated: bool = False
    error: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a token dies with: ``kind`` is secret, pod or node."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Claims:
    """What a ServiceAccount's token says of itself; all of it may be a lie until the signature is checked."""

    issuer: str
    audiences: tuple[str, ...]
    namespace: str
    account: str
    account_uid: str
    bound: Bound | None
    issued: datetime | None
    not_before: datetime | None
    expires: datetime | None
    jti: str

    @property
    def new_token(self) -> str:
        """Return the line that gets another token."""
        return _AGAIN.format(account=self.account, namespace=self.namespace)


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """All that was found out. ``issuer`` is empty where the user may not ask for it."""

    claims: Claims
    here: datetime
    there: datetime | None
    issuer: str
    signature: Signature
    account: Seen
    bound: Seen
    events: tuple[str, ...]
    accepted: bool
    review: Review
    own_audience: Review


def claims_of(token: UnverifiedToken) -> Claims | None:
    """Return the claims of a bound ServiceAccount token, or None for another kind of JWT."""
    said, kubernetes = token.claims, token.claims.get("kubernetes.io")
    account = kubernetes.get("serviceaccount") if isinstance(kubernetes, dict) else None
    if not isinstance(kubernetes, dict) or not isinstance(account, dict):
        return None
    audience = said.get("aud", [])
    return Claims(
        issuer=str(said.get("iss", "")),
        audiences=tuple(map(str, audience)) if isinstance(audience, list) else (str(audience),),
        namespace=str(kubernetes.get("namespace", "")),
        account=str(account.get("name", "")),
        account_uid=str(account.get("uid", "")),
        bound=next((_bound(kind, kubernetes[kind]) for kind in BOUND_KINDS if kind in kubernetes), None),
        issued=_moment(said.get("iat")),
        not_before=_moment(said.get("nbf")),
        expires=_moment(said.get("exp")),
        jti=str(said.get("jti", "")),
    )


def _bound(kind: str, claim: Any) -> Bound:
    known = claim if isinstance(claim, dict) else {}
    return Bound(kind, str(known.get("name", "")), str(known.get("uid", "")))


def _moment(claim: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(claim, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def diagnose(facts: TokenFacts) -> Iterator[Finding]:
    """Yield what is wrong with a token, each check in turn."""
    yield _issuer(facts)
    yield _times(facts)
    yield from clocks(facts.here, {"API server": facts.there})
    if not foreign(facts.issuer, facts.claims):  # this cluster knows nothing of another one's accounts
        yield _signature(facts)
        yield _audience(facts)
        yield _account(facts)
        yield _anchor(facts)
        yield _review(facts)
        yield _verdict(facts)


def foreign(issuer: str, claims: Claims) -> bool:
    """Tell whether a token names another issuer than the cluster's, which is then not shown to this cluster."""
    return bool(issuer) and issuer != claims.issuer


def _issuer(facts: TokenFacts) -> Finding:
    identity, claims = "token.issuer", facts.claims
    if not facts.issuer:
        return unknown(identity, f"the token is of {claims.issuer}; you may not read which issuer this cluster is")
    if foreign(facts.issuer, claims):
        text = f"the token is of {claims.issuer}, this cluster is {facts.issuer}: it was not shown to it"
        return problem(identity, text, OTHER_CLUSTER)
    return ok(identity, f"this cluster is {facts.issuer}, as the token says")


def _signature(facts: TokenFacts) -> Finding:
    identity = "token.signature"
    match facts.signature:
        case Signature.GOOD:
            return ok(identity, "one of the cluster's keys signed it")
        case Signature.BAD:
            return problem(identity, "the signature is not that of the key it names: it was changed", _again(facts))
        case Signature.UNKNOWN_KEY:
            text = "no key of this cluster signed it: it is another cluster's, or from before its keys were replaced"
            return problem(identity, text, f"{_again(facts)}\n{OTHER_CLUSTER}")
    return unknown(identity, "the cluster's keys could not be read, so the signature was not checked here")


def _again(facts: TokenFacts) -> str:
    return facts.claims.new_token


def _times(facts: TokenFacts) -> Finding:
    """Judge the times by the API server's clock, which is the one that counts."""
    identity, now = "token.time", facts.there or facts.here
    claims, clock = facts.claims, "the API server" if facts.there else "this machine"
    if claims.expires is not None and claims.expires <= now:
        return problem(identity, f"it expired at {both(claims.expires, now)} by the clock of {clock}", _again(facts))
    if claims.not_before is not None and claims.not_before > now:
        text = f"it is not valid before {both(claims.not_before, now)} by the clock of {clock}"
        return problem(identity, text, "set the clocks of the API servers (NTP), then get a new token")
    if claims.expires is None:
        return problem(identity, "it never expires: it is no token of the broker's", _again(facts))
    return ok(identity, f"it expires at {both(claims.expires, now)}")


def _audience(facts: TokenFacts) -> Finding:
    identity, claims = "token.audience", facts.claims
    named = ", ".join(claims.audiences)
    if facts.accepted:
        return ok(identity, f"it is for {named}, which the API server is")
    if facts.own_audience.authenticated:
        text = f"it is good, but for {named} alone: the API server is another audience"
        return problem(identity, text, _for_the_api_server(facts))
    if not facts.issuer or facts.issuer in claims.audiences:
        return unknown(identity, f"it is for {named}; only an accepted token tells whether that is the API server")
    text = f"it is for {named}; the API server is {facts.issuer}, unless its --api-audiences say otherwise"
    return problem(identity, text, _for_the_api_server(facts))


def _for_the_api_server(facts: TokenFacts) -> str:
    claims = facts.claims
    audience = f" --audience {facts.issuer}" if facts.issuer else ""
    return f"tokenbroker token get{audience}   # or kubectl create token {claims.account} -n {claims.namespace}"


def _account(facts: TokenFacts) -> Finding:
    identity, claims = "token.account", facts.claims
    name = f"{claims.namespace}/{claims.account}"
    if facts.account.refusal:
        return unknown(identity, f"you may not look at the ServiceAccount {name} ({facts.account.refusal})")
    if facts.account.metadata is None:
        command = f"kubectl create serviceaccount {claims.account} -n {claims.namespace}   # then get a new token"
        return problem(identity, f"the ServiceAccount {name} was deleted", command)
    if facts.account.uid != claims.account_uid:
        created = facts.account.time("creationTimestamp")
        when = f" at {both(created, facts.here)}" if created else ""
        text = f"the ServiceAccount {name} was deleted, and another one of that name was made{when}"
        return problem(identity, f"{text}: tokens of the old one count no more", _again(facts))
    return ok(identity, f"the ServiceAccount {name} is the one that it was issued for")


def _anchor(facts: TokenFacts) -> Finding:
    identity, bound = "token.anchor", facts.claims.bound
    if bound is None:
        return ok(identity, "it is bound to nothing: only its expiry, or the account's end, ends it")
    what = f"{bound.kind.capitalize()} {facts.claims.namespace}/{bound.name}"
    if facts.bound.refusal:
        return unknown(identity, f"you may not look at the {what} ({facts.bound.refusal})")
    if (deleting := facts.bound.time("deletionTimestamp")) is not None and facts.bound.uid == bound.uid:
        text = f"the {what} is being deleted since {both(deleting, facts.here)}, and ends its tokens"
        return problem(identity, text, _again(facts))
    if facts.bound.uid == bound.uid:
        return ok(identity, f"the {what}, which it is bound to, is there")
    gone = "is gone" if facts.bound.metadata is None else "was deleted, and another one has its name"
    return problem(identity, f"the {what} {gone}, and its tokens with it; {_since(facts)}", _again(facts))


def _since(facts: TokenFacts) -> str:
    """Say when the anchor went, as far as it can be known."""
    if facts.events:
        return f"as recorded: {facts.events[-1]}"
    successor, issued = facts.bound.time("creationTimestamp"), facts.claims.issued
    until = f"{both(successor, facts.here)}, when the other one was made" if successor else "now"
    after = both(issued, facts.here) if issued else "the token was issued"
    return f"since when cannot be known, for Kubernetes keeps no record of it: between {after} and {until}"


def _verdict(facts: TokenFacts) -> Finding:
    identity = "token.accepted"
    if facts.accepted:
        text = "the API server accepts it: what is refused with it is a right (403), see --can"
        return ok(identity, f"{text}; an anchor that went in the last 10 s may not show yet")
    return problem(identity, "the API server answers 401: it does not know the token's bearer", _again(facts))


def _review(facts: TokenFacts) -> Finding:
    identity, review = "token.review", facts.review
    if review.refusal:
        return unknown(identity, f"no TokenReview was made ({review.refusal})")
    if review.authenticated:
        return ok(identity, "TokenReview says that it is good")
    return problem(identity, f"TokenReview says: {review.error or 'not authenticated'}", _again(facts))

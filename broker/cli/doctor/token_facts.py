"""Finds out what there is to know about a token, with the user's own rights, and with the token itself."""

from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from broker.cli.cluster import Cluster
from broker.cli.doctor.clocks import server_time
from broker.cli.doctor.objects import Seen, look, message
from broker.cli.doctor.token import Bound, Claims, Review, Signature, TokenFacts, foreign
from broker.cli.manifests import Manifest
from broker.model.sensitive import Sensitive

AUTHENTICATION = "/apis/authentication.k8s.io/v1"
_ANOTHER_CLUSTERS = "it is another cluster's"


async def gather(cluster: Cluster, token: Sensitive, claims: Claims, here: datetime) -> TokenFacts:
    """Return the facts. A token that names another issuer is not sent to this cluster."""
    discovery = await cluster.ask("GET", "/.well-known/openid-configuration")
    issuer = str(discovery.document.get("issuer", "")) if discovery.status == HTTPStatus.OK else ""
    elsewhere = foreign(issuer, claims)
    withheld = Review(refusal=_ANOTHER_CLUSTERS)
    return TokenFacts(
        claims=claims,
        here=here,
        there=server_time(discovery.date),
        issuer=issuer,
        signature=await _signature(cluster, token),
        account=await look(cluster, f"{_namespace(claims)}/serviceaccounts/{quote(claims.account, safe='')}"),
        bound=await _bound(cluster, claims),
        events=await _events(cluster, claims),
        accepted=not elsewhere and await accepted(cluster, token),
        review=withheld if elsewhere else await review(cluster, token),
        own_audience=withheld if elsewhere else await review(cluster, token, claims.audiences),
    )


async def accepted(cluster: Cluster, token: Sensitive) -> bool:
    """Tell whether the API server knows who bears the token: whatever is not 401 says that it does."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    async with cluster.bearer(token) as bearer:
        answer = await bearer.ask("POST", f"{AUTHENTICATION}/selfsubjectreviews", body)
    return answer.status != HTTPStatus.UNAUTHORIZED


async def review(cluster: Cluster, token: Sensitive, audiences: tuple[str, ...] = ()) -> Review:
    """Make a TokenReview, for the API server's own audience where none is named."""
    spec: Manifest = {"token": token.reveal()} | ({"audiences": list(audiences)} if audiences else {})
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    answer = await cluster.ask("POST", f"{AUTHENTICATION}/tokenreviews", body)
    if answer.status != HTTPStatus.CREATED:
        return Review(refusal=message(answer))
    status = answer.document.get("status", {})
    return Review(bool(status.get("authenticated")), str(status.get("error", "")))


async def _signature(cluster: Cluster, token: Sensitive) -> Signature:
    answer = await cluster.ask("GET", "/openid/v1/jwks", headers={"Accept": "application/jwk-set+json"})
    keys = answer.document.get("keys")
    if answer.status != HTTPStatus.OK or not isinstance(keys, list):
        return Signature.NOT_CHECKED
    return verify(token, keys)


def verify(token: Sensitive, keys: list[Any]) -> Signature:
    """Compare a token's signature with a cluster's keys, whatever else is wrong with it."""
    import jwt  # noqa: PLC0415 - cryptography takes its time to load

    try:
        name = jwt.get_unverified_header(token.reveal()).get("kid")
        named = [key for key in keys if key.get("kid") == name]
        if not named:
            return Signature.UNKNOWN_KEY
        jwt.PyJWS().decode(token.reveal(), jwt.PyJWK(named[0]).key, algorithms=[named[0]["alg"]])
    except jwt.InvalidTokenError:
        return Signature.BAD
    except (jwt.PyJWTError, KeyError, AttributeError):
        return Signature.NOT_CHECKED
    return Signature.GOOD


async def _bound(cluster: Cluster, claims: Claims) -> Seen:
    bound = claims.bound
    return Seen() if bound is None else await look(cluster, _place(claims, bound))


def _place(claims: Claims, bound: Bound) -> str:
    root = "/api/v1" if bound.kind == "node" else _namespace(claims)
    return f"{root}/{bound.kind}s/{quote(bound.name, safe='')}"


async def _events(cluster: Cluster, claims: Claims) -> tuple[str, ...]:
    """Return what Events say about the anchor; there are seldom any."""
    if claims.bound is None:
        return ()
    query = {"fieldSelector": f"involvedObject.name={claims.bound.name}"}
    answer = await cluster.ask("GET", f"{_namespace(claims)}/events", query=query)
    items = answer.document.get("items") or [] if answer.status == HTTPStatus.OK else []
    told = sorted((_when(it), str(it.get("message", ""))) for it in items)
    return tuple(f"{when} {text}" for when, text in told)


def _when(event: Manifest) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _namespace(claims: Claims) -> str:
    return f"/api/v1/namespaces/{quote(claims.namespace, safe='')}"

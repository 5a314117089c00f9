"""The one hot call: TokenRequest (https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/)."""

import binascii
import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from broker.errors import BrokerError, Reason
from broker.kube.answer import Answer, unavailable
from broker.model.decision import MIN_TTL_SECONDS
from broker.model.sensitive import Sensitive
from broker.model.token import MintedToken, TokenSpec


class Caller(Protocol):
    """What this adapter needs of a session."""

    async def call(self, method: str, path: str, body: dict[str, Any], *, repeatable: bool) -> Answer:
        """Make one call to the API server."""


class TokenRequestMetrics(Protocol):
    """What is told about TokenRequests."""

    def token_requested(self, seconds: float) -> None:
        """Observe the time that one took."""

    def token_request_failed(self, reason: Reason) -> None:
        """Count one that made no token."""


class TokenRequests:
    """Mints through the API server; implements :class:`broker.ports.Minter`.

    A request may be repeated: a token whose answer was lost is known to nobody.
    """

    def __init__(self, session: Caller, metrics: TokenRequestMetrics) -> None:
        self._session = session
        self._metrics = metrics

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """Return a token, checked to be what was asked for; see :meth:`broker.ports.Minter.mint`."""
        started = time.perf_counter()
        try:
            answer = await self._session.call("POST", _path(spec), _body(spec), repeatable=True)
            if answer.status != 201:  # noqa: PLR2004 - 201 Created
                raise _refusal(answer, spec)
            return _checked(answer, spec)
        except BrokerError as error:
            self._metrics.token_request_failed(error.reason)
            raise
        finally:
            self._metrics.token_requested(time.perf_counter() - started)

    async def rehearse(self, spec: TokenSpec) -> MintedToken:
        """Find out whether a mint would succeed, by minting: the API server issues tokens even on a dry run.

        The token is for looking at what its account may do, and for nobody else; it lives for ten minutes.
        """
        shortest = replace(spec, ttl_seconds=MIN_TTL_SECONDS)
        answer = await self._session.call("POST", _path(spec), _body(shortest), repeatable=True)
        if not answer.ok:
            raise _refusal(answer, spec)
        return _checked(answer, shortest)


def _path(spec: TokenSpec) -> str:
    return f"/api/v1/namespaces/{spec.namespace}/serviceaccounts/{spec.service_account}/token"


def _body(spec: TokenSpec) -> dict[str, Any]:
    asked: dict[str, Any] = {"audiences": [spec.audience], "expirationSeconds": spec.ttl_seconds}
    if spec.anchor is not None:
        bound = {"apiVersion": "v1", "kind": "Secret", "name": spec.anchor.name, "uid": spec.anchor.uid}
        asked["boundObjectRef"] = bound
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": asked}
    # Kubernetes takes a UID here as the one that the account must have, and answers 409 where it has another.
    return {**body, "metadata": {"uid": spec.account_uid}} if spec.account_uid else body


def _checked(answer: Answer, spec: TokenSpec) -> MintedToken:
    """Believe nothing that was not checked: who the token is for, what it is bound to, and until when."""
    try:
        value: str = orjson.loads(answer.body)["status"]["token"]
        claims = unverified_claims(value)
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        issued_at = datetime.fromtimestamp(claims["iat"], UTC)
        private = claims["kubernetes.io"]
        bound_uid = private["secret"]["uid"] if "secret" in private else None
        account_uid = str(private["serviceaccount"]["uid"])
        jti = str(claims.get("jti", ""))
        named = (claims["aud"], claims["sub"], bound_uid)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise unavailable("its answer to a TokenRequest is not complete") from None
    wanted = ([spec.audience], spec.subject, spec.anchor.uid if spec.anchor else None)
    if named != wanted:
        raise BrokerError(
            Reason.KUBERNETES_REJECTED,
            "The Kubernetes API issued another token than was asked for.",
            operator_detail=(
                f"The API server's answer is for audience, subject and Secret {named}, not for what was asked: "
                f"{wanted}. The token was thrown away."
            ),
        )
    digest = hashlib.sha256(value.encode()).hexdigest()
    return MintedToken(Sensitive(value), jti, issued_at, expires_at, digest, account_uid)


def unverified_claims(token: str) -> dict[str, Any]:
    """Return a JWT's claims without checking its signature: it came from the API server itself, over TLS.

    Raises ValueError where it is no JWT.
    """
    _, payload, _ = token.split(".")
    claims = orjson.loads(binascii.a2b_base64(payload.replace("-", "+").replace("_", "/") + "=" * (-len(payload) % 4)))
    if not isinstance(claims, dict):
        raise ValueError("claims are not an object")  # noqa: TRY004 - one kind of error for a bad token
    return claims


def _refusal(answer: Answer, spec: TokenSpec) -> BrokerError:
    match answer.status:
        case 403:
            return _not_authorized(answer, spec)
        case 404:
            return _missing(answer, spec)
        case 409:
            return _anchor_missing(answer)
        case status if status == 429 or status >= 500:  # noqa: PLR2004 - too many requests, and every failure of its own
            return unavailable(f"TokenRequest answered {answer.status}", answer.retry_after)
        case 401:
            return unavailable("it does not accept the broker's own token (401)", 10)
    return BrokerError(
        Reason.KUBERNETES_REJECTED,
        "The Kubernetes API rejected the request for a token.",
        operator_detail=f"TokenRequest for {spec.subject} was rejected ({answer.status}): {answer.message()}",
    )


def _not_authorized(answer: Answer, spec: TokenSpec) -> BrokerError:
    return BrokerError(
        Reason.BROKER_NOT_AUTHORIZED,
        "The broker may not mint tokens for this grant at the moment; its operators have been told.",
        operator_detail=(
            f"The broker may not create tokens for {spec.service_account} in {spec.namespace}: "
            f"apply a Role with create on serviceaccounts/token for resourceNames: [{spec.service_account}] and a "
            f"RoleBinding to the broker's account there (deploy/client-namespace, or tokenbroker client add). "
            f"The API server said: {answer.message()}"
        ),
        retry_after=30,
    )


def _missing(answer: Answer, spec: TokenSpec) -> BrokerError:
    if answer.detail_kind() == "secrets":
        return _anchor_missing(answer)
    return BrokerError(
        Reason.SERVICE_ACCOUNT_MISSING,
        "The service account of this grant does not exist.",
        operator_detail=(
            f"ServiceAccount {spec.service_account} does not exist in {spec.namespace}: "
            f"kubectl create serviceaccount {spec.service_account} -n {spec.namespace}"
        ),
    )


def _anchor_missing(answer: Answer) -> BrokerError:
    return BrokerError(
        Reason.ANCHOR_MISSING,
        "The grant is being prepared; try again shortly.",
        operator_detail=(
            f"The Secret that tokens are bound to is gone, or it or the account was made again: {answer.message()}"
        ),
        retry_after=2,
    )

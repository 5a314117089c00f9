"""TokenReview: whether a ServiceAccount token is authentic, and was not ended since.

Source: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
"""

from collections.abc import Mapping
from typing import Any

import orjson

from broker.errors import BrokerError, Reason
from broker.kube.answer import Answer, unavailable
from broker.kube.session import KubeSession
from broker.kube.token_requests import unverified_claims
from broker.model.sensitive import Sensitive
from broker.ports import LiveToken, Reviewed

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
KEYS = "/openid/v1/jwks"


class TokenReviews:
    """Asks the API server about tokens."""

    def __init__(self, session: KubeSession) -> None:
        self._session = session

    async def review(self, token: str, audience: str) -> Reviewed | None:
        """Return whose token it is, or None where the API server does not accept it for the audience.

        Raises BrokerError: kubernetes_unavailable, kubernetes_timeout, broker_not_authorized.
        """
        document = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        answer = await self._session.call("POST", REVIEWS, document, repeatable=True)
        if answer.status == 403:  # noqa: PLR2004 - 403 Forbidden
            raise _not_authorized(answer)
        if not answer.ok:
            raise unavailable(f"TokenReview answered {answer.status}", answer.retry_after)
        return _reviewed(answer)

    async def inspect(self, token: Sensitive) -> LiveToken | None:
        """Return what a token says, once the API server has accepted it for the audience that it names itself."""
        live = _live(token.reveal())
        if live is None or await self.review(token.reveal(), live.audience) is None:
            return None
        return live

    async def keys(self) -> bytes:
        """Return the keys with which the cluster signs its tokens, a JWK set. Raises OSError.

        Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#serviceaccount-issuer-discovery
        """
        try:
            answer = await self._session.call("GET", KEYS)
        except BrokerError as error:
            raise OSError(error.operator_detail) from None
        if not answer.ok:
            raise OSError(f"{KEYS} answered {answer.status}: {answer.message()}")
        return answer.body


def _reviewed(answer: Answer) -> Reviewed | None:
    try:
        status: Mapping[str, Any] = orjson.loads(answer.body)["status"]
        if status.get("authenticated") is not True:
            return None
        user = status["user"]
        return Reviewed(str(user["username"]), str(user.get("uid", "")), tuple(status.get("audiences", ())))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise unavailable("its answer to a TokenReview is not complete") from None


def _live(token: str) -> LiveToken | None:
    """Return what a token says, unverified, or None where it says less than those that the broker mints."""
    try:
        claims = unverified_claims(token)
        (audience,) = claims["aud"]
        bound = claims["kubernetes.io"].get("secret") or {"name": ""}
        texts = (claims["iss"], claims["sub"], audience, claims["jti"], bound["name"])
        times = (claims["iat"], claims["exp"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(time, int) for time in times):
        return None
    issuer, subject, audience, jti, anchor_name = texts
    return LiveToken(issuer, subject, audience, *times, jti, anchor_name)


def _not_authorized(answer: Answer) -> BrokerError:
    return BrokerError(
        Reason.BROKER_NOT_AUTHORIZED,
        "The broker may not ask about service account tokens at the moment; its operators have been told.",
        operator_detail=(
            "The broker may not create TokenReviews, which takes a right in the whole cluster: apply the ClusterRole "
            "of deploy/base. A tenant who cannot has to do without (docs/registry.md). "
            f"The API server said: {answer.message()}"
        ),
        retry_after=30,
    )

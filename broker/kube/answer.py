"""What the API server answered, and what it means when it cannot."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson

from broker.errors import BrokerError, Reason

RETRY_SECONDS = 2
CANNOT_SERVE = "The Kubernetes API cannot serve at the moment."


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said. ``body`` may hold a token; ``retry_after`` in seconds, None where it named none."""

    status: int
    body: bytes = field(repr=False)
    retry_after: int | None = None

    @property
    def ok(self) -> bool:
        """Tell whether the call succeeded."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def json(self) -> Any:
        """Return the decoded body. Raises BrokerError(kubernetes_unavailable) where it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise unavailable("the API server's answer is not JSON") from None

    def message(self) -> str:
        """Return the API server's own words for a failure (a metav1.Status), or the status code."""
        try:
            status = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            status = None
        text = status.get("message") if isinstance(status, dict) else None
        return text if isinstance(text, str) else f"HTTP {self.status}"

    def detail_kind(self) -> str:
        """Return what kind of object a failure (a metav1.Status) is about, or an empty text."""
        try:
            return str(orjson.loads(self.body)["details"]["kind"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return ""


class OversizedAnswerError(BrokerError):
    """The answer to a call is larger than is read: who can ask for less, may."""

    def __init__(self) -> None:
        super().__init__(
            Reason.KUBERNETES_UNAVAILABLE,
            CANNOT_SERVE,
            operator_detail="The API server's answer is larger than is read.",
            retry_after=RETRY_SECONDS,
        )


def unavailable(why: str, retry_after: int | None = None) -> BrokerError:
    """Return the error for an API server that cannot serve at the moment."""
    return BrokerError(
        Reason.KUBERNETES_UNAVAILABLE,
        CANNOT_SERVE,
        operator_detail=f"The API server cannot serve at the moment: {why}.",
        retry_after=retry_after or RETRY_SECONDS,
    )


def timed_out(seconds: float) -> BrokerError:
    """Return the error for an API server that did not answer within so many seconds."""
    return BrokerError(
        Reason.KUBERNETES_TIMEOUT,
        "The Kubernetes API did not answer in time.",
        operator_detail=f"The API server did not answer within {seconds:g} s.",
        retry_after=RETRY_SECONDS,
    )

"""What Vault answered, and what a failure means to the broker.

Vault's own words never get into errors or logs: they may repeat what was sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from broker.errors import BrokerError, Reason

RETRY_SECONDS = 5
DENIED_RETRY_SECONDS = 30

_UPGRADING = "non-versioned to versioned data"
"""A KV engine says so (400) while its server starts: on a standby until the active one has done it."""

_CONFLICT = "check-and-set parameter did not match"
_BUSY = {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.TOO_MANY_REQUESTS, 472, 473}
"""Behind on replication (412), over a quota or a standby (429), a secondary that cannot serve (472, 473)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What Vault said to one call. ``body`` may hold a token; ``retry_after`` is in seconds, None where unsaid."""

    method: str
    path: str
    status: int
    body: Mapping[str, Any] = field(repr=False)
    retry_after: int | None = None


def checked(answer: Answer) -> Answer:
    """Return an answer that succeeded, or that says that nothing is there (404).

    Raises BrokerError: vault_denied, vault_write_conflict, vault_unavailable.
    """
    if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES or answer.status == HTTPStatus.NOT_FOUND:
        return answer
    if answer.status < HTTPStatus.BAD_REQUEST:
        raise _redirected(answer)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in _BUSY:
        raise _cannot_serve(answer)
    if answer.status == HTTPStatus.BAD_REQUEST and _mentions(answer, _CONFLICT):
        raise conflict(answer.path)
    if answer.status == HTTPStatus.BAD_REQUEST and _mentions(answer, _UPGRADING):
        raise unavailable("Vault's KV engine is starting (400): it will be there in a moment.")
    raise _refused(answer)


def unavailable(why: str, retry_after: int | None = None) -> BrokerError:
    """Return the error for a Vault that cannot serve at the moment; ``why`` says what to do."""
    return BrokerError(
        Reason.VAULT_UNAVAILABLE,
        "Vault cannot serve at the moment.",
        operator_detail=why,
        retry_after=retry_after or RETRY_SECONDS,
    )


def denied(why: str) -> BrokerError:
    """Return the error for a Vault that will not do it; ``why`` says what to mend."""
    return BrokerError(
        Reason.VAULT_DENIED,
        "Vault refused the broker; its operators have been told.",
        operator_detail=why,
        retry_after=DENIED_RETRY_SECONDS,
    )


def conflict(path: str) -> BrokerError:
    """Return the error for a write that met another version than it was for."""
    return BrokerError(
        Reason.VAULT_WRITE_CONFLICT,
        "Somebody else wrote to the same place in Vault at the same time; try again.",
        operator_detail=f"Another version was current when writing {path}. Find out who else writes there.",
        retry_after=1,
    )


def _mentions(answer: Answer, words: str) -> bool:
    errors = answer.body.get("errors")
    return isinstance(errors, list) and any(words in str(error) for error in errors)


def _redirected(answer: Answer) -> BrokerError:
    return unavailable(
        f"Vault answered with a redirect ({answer.status}), as a standby does that does not reach the active server. "
        "It is not followed, because it would carry the broker's token to whatever host it names. Where it lasts, let "
        "vault.address be that of all servers, and see that one of them is active (vault operator raft list-peers)."
    )


def _cannot_serve(answer: Answer) -> BrokerError:
    match answer.status:
        case HTTPStatus.SERVICE_UNAVAILABLE:
            why = "Vault is sealed or has no active node (503): unseal it."
        case HTTPStatus.NOT_IMPLEMENTED:
            why = "Vault is not initialised (501): initialise and unseal it."
        case _:
            why = f"Vault cannot serve {answer.method} {answer.path} ({answer.status}): see its log."
    return unavailable(why, answer.retry_after)


def _refused(answer: Answer) -> BrokerError:
    if answer.status == HTTPStatus.FORBIDDEN:
        return denied(
            f"Vault refused {answer.method} {answer.path} (403): give the broker's role the policy in "
            "deploy/vault/policy.hcl, with this mount and prefix."
        )
    return denied(
        f"Vault rejected {answer.method} {answer.path} ({answer.status}): check that vault.mount is a KV engine of "
        "version 2."
    )

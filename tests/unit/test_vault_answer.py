"""What Vault's failures mean to the broker."""

import pytest

from broker.errors import BrokerError, Reason
from broker.vault.answer import Answer, checked

SAID = "s.token-that-vault-repeats"


@pytest.mark.parametrize(
    ("status", "errors", "reason"),
    [
        (307, [], Reason.VAULT_UNAVAILABLE),
        (400, [SAID], Reason.VAULT_DENIED),
        (400, ["check-and-set parameter did not match the current version"], Reason.VAULT_WRITE_CONFLICT),
        (400, ["check-and-set parameter required for this call"], Reason.VAULT_DENIED),
        (400, ["Upgrading from non-versioned to versioned data. This backend ..."], Reason.VAULT_UNAVAILABLE),
        (403, [SAID], Reason.VAULT_DENIED),
        (405, [SAID], Reason.VAULT_DENIED),
        (412, [SAID], Reason.VAULT_UNAVAILABLE),
        (429, [SAID], Reason.VAULT_UNAVAILABLE),
        (473, [], Reason.VAULT_UNAVAILABLE),
        (500, [SAID], Reason.VAULT_UNAVAILABLE),
        (501, [], Reason.VAULT_UNAVAILABLE),
        (503, ["Vault is sealed"], Reason.VAULT_UNAVAILABLE),
    ],
)
def test_every_failure_has_a_reason_and_says_what_to_do(status: int, errors: list[str], reason: Reason) -> None:
    """The reason tells refusals from outages, operators get an instruction, and Vault's words stay out."""
    with pytest.raises(BrokerError) as caught:
        checked(Answer("POST", "/v1/secret/data/a", status, {"errors": errors}))

    error = caught.value
    assert error.reason is reason
    assert ": " in error.operator_detail or "." in error.operator_detail
    assert error.retry_after
    assert SAID not in f"{error!r}{error.detail}{error.operator_detail}"


@pytest.mark.parametrize("status", [200, 204, 404])
def test_what_is_no_failure_is_passed_on(status: int) -> None:
    """That nothing is there is for the caller to judge."""
    answer = Answer("GET", "/v1/a", status, {})

    assert checked(answer) is answer


def test_an_answer_does_not_print_its_body() -> None:
    """The body of a login holds a token."""
    assert SAID not in repr(Answer("POST", "/v1/auth/kubernetes/login", 200, {"auth": {"client_token": SAID}}))

"""What Vault may answer to a login."""

import pytest

from broker.errors import BrokerError, Reason
from broker.vault.answer import Answer
from broker.vault.login import _lease


@pytest.mark.parametrize("token", ["", "s.tök", "s.a\r\nX: y", "s. a", None, 7])
def test_what_cannot_be_sent_as_a_token_is_none(token: object) -> None:
    """Vault cannot serve then; nothing else ends over it."""
    auth = {"client_token": token, "lease_duration": 60, "renewable": True}
    with pytest.raises(BrokerError) as caught:
        _lease(Answer("POST", "/v1/auth/kubernetes/login", 200, {"auth": auth}), 0.0)

    assert caught.value.reason is Reason.VAULT_UNAVAILABLE

"""Kinds of values that stand in the configuration."""

import pytest
from pydantic import TypeAdapter, ValidationError

from broker.config_values import HttpsUrl


@pytest.mark.parametrize("url", ["https://tresor-münchen.example:8200", "https://vault.example/väult"])
def test_an_address_that_cannot_stand_in_a_request_is_refused(url: str) -> None:
    """It would fail at each call; the message says how to write it."""
    with pytest.raises(ValidationError, match="must be ASCII"):
        TypeAdapter(HttpsUrl).validate_python(url)

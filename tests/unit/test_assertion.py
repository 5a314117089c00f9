"""What is remembered of assertions, on a clock of the test's own."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from broker.errors import BrokerError
from broker.identity import assertion
from broker.identity.assertion import MAX_LIFE_SECONDS, Assertions
from broker.identity.jose import LEEWAY_SECONDS
from broker.model.client import Client, Proofs
from broker.model.proof import KeyRule
from tests.support.issuer import SigningKey
from tests.support.rotation import client

NAME, AUDIENCE = "shop/reporter", "https://broker.example"
KEY = SigningKey.create("k")


@dataclass
class Clock:
    """A date that is moved by hand."""

    seconds: float = 1_800_000_000

    def now(self) -> datetime:
        """Return the date."""
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def assertions(clock: Clock) -> Assertions:
    """Return the check."""
    return Assertions((AUDIENCE,), clock)


def signer(uid: str = "uid") -> Client:
    """Return the client that owns the key."""
    made = client(uid=uid)
    assert str(made.id) == NAME
    return Client(made.id, uid, 1, "", None, False, Proofs(keys=(KeyRule(KEY.jwk),)), made.grants)  # noqa: FBT003


def signed(clock: Clock, jti: str, life: int = 60) -> str:
    """Return an assertion."""
    now = int(clock.seconds)
    return KEY.sign({"iss": NAME, "sub": NAME, "aud": AUDIENCE, "iat": now, "exp": now + life, "jti": jti})


def test_an_id_is_remembered_as_long_as_its_assertion_could_be_used(assertions: Assertions, clock: Clock) -> None:
    """To the last second of the leeway, and then it is forgotten together with its client."""
    made = signed(clock, "one")
    assertions.verify(made, signer())
    clock.seconds += 60 + LEEWAY_SECONDS - 1
    with pytest.raises(BrokerError, match="replayed"):
        assertions.verify(made, signer())
    clock.seconds += 1
    with pytest.raises(BrokerError, match="expired"):
        assertions.verify(made, signer())
    assertions.verify(signed(clock, "two"), signer())

    assert assertions._used._ids == {("uid", "two")}
    assert assertions._used._counts == {"uid": 1}


def test_a_client_that_was_made_again_starts_anew(assertions: Assertions, clock: Clock) -> None:
    """Ids are its own: another client of the same name, or another client, may have used the same ones."""
    made = signed(clock, "one")
    assertions.verify(made, signer("uid-1"))

    assertions.verify(made, signer("uid-2"))


def test_more_than_can_be_remembered(assertions: Assertions, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client's assertions are bounded, hurt no other client, and the bound passes with time."""
    monkeypatch.setattr(assertion, "MAX_REMEMBERED", 3)
    for number in range(3):
        assertions.verify(signed(clock, str(number)), signer())
    with pytest.raises(BrokerError, match="too_many_proofs") as caught:
        assertions.verify(signed(clock, "more"), signer())
    assertions.verify(signed(clock, "more"), signer("uid-2"))
    clock.seconds += 60 + LEEWAY_SECONDS

    assert caught.value.retry_after == LEEWAY_SECONDS
    assertions.verify(signed(clock, "more"), signer())


@pytest.mark.parametrize("life", [MAX_LIFE_SECONDS, MAX_LIFE_SECONDS + LEEWAY_SECONDS + 1])
def test_the_longest_life(assertions: Assertions, clock: Clock, life: int) -> None:
    """An hour, and no more."""
    if life == MAX_LIFE_SECONDS:
        assertions.verify(signed(clock, "one", life), signer())
    else:
        with pytest.raises(BrokerError, match="malformed"):
            assertions.verify(signed(clock, "one", life), signer())

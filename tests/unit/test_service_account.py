"""ServiceAccount tokens, with an API server that says what it is told to say."""

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.errors import ProofError, ProofFailure
from broker.identity import service_account
from broker.identity.jose import parse, read_key_set
from broker.identity.service_account import CACHE_SECONDS, ClusterTokens
from broker.model.proof import VerifiedAccount
from broker.ports import Reviewed
from tests.support.issuer import SigningKey

CLUSTER, URL = "https://kubernetes.default.svc", "https://broker.example"
KEY = SigningKey.create("k")
ACCOUNT = Reviewed("system:serviceaccount:ci:runner", "uid-1", (URL,))


@dataclass
class Clock:
    """A clock whose monotonic seconds are moved by hand."""

    seconds: float = 0.0

    def now(self) -> datetime:
        """Return the real time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.seconds


@dataclass
class Reviewer:
    """Says of every token what it is told to, and counts."""

    reviewed: Reviewed | None = ACCOUNT
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def review(self, token: str, audience: str, namespace: str) -> Reviewed | None:
        """Return what it was told."""
        self.asked.append((token, audience, namespace))
        return self.reviewed


class Keys:
    """The cluster's only key."""

    async def find(self, _token: object) -> Any:
        """Return it."""
        return KEYS[0]


KEYS = read_key_set(json.dumps({"keys": [KEY.jwk]}).encode())


def token(**changes: Any) -> Any:
    """Return a token of an account for the broker, but for what is changed."""
    now = int(time.time())
    said = {"iss": CLUSTER, "aud": [URL], "sub": ACCOUNT.username, "iat": now, "exp": now + 3600}
    said |= {"kubernetes.io": {"pod": {"name": "p"}}}
    return parse(KEY.sign(said | changes))


def tokens(reviewer: Reviewer, clock: Clock) -> ClusterTokens:
    """Return the check."""
    return ClusterTokens(CLUSTER, URL, Keys(), reviewer, clock)  # type: ignore[arg-type] # it only finds


async def failure(one: Any, reviewer: Reviewer) -> ProofFailure:
    """Return why a token is refused."""
    with pytest.raises(ProofError) as caught:
        await tokens(reviewer, Clock()).verify(one)
    return caught.value.failure


async def test_the_api_server_has_the_last_word() -> None:
    """It is asked for the broker's audience, and its word counts for a moment."""
    reviewer, clock = Reviewer(), Clock()
    checked, one = tokens(reviewer, clock), token()
    for _ in range(3):
        assert await checked.verify(one) == VerifiedAccount("ci", "runner", "uid-1")
    clock.seconds += CACHE_SECONDS
    await checked.verify(one)

    assert reviewer.asked == [(one.text, URL, "ci")] * 2


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kubernetes.io": {"secret": {"name": "tokenbroker-anchor-x"}}}, ProofFailure.NOT_ACCEPTED),
        ({"aud": [URL, "other"]}, ProofFailure.WRONG_AUDIENCE),
        ({"aud": [CLUSTER]}, ProofFailure.WRONG_AUDIENCE),
        ({"exp": 1}, ProofFailure.EXPIRED),
        ({"sub": "runner"}, ProofFailure.NOT_ACCEPTED),
    ],
    ids=["bound to a Secret", "for others too", "for the API server", "expired", "no account's"],
)
async def test_tokens_that_the_api_server_is_not_even_asked_about(changes: dict[str, Any], why: ProofFailure) -> None:
    """What the token itself says is enough."""
    reviewer = Reviewer()

    assert await failure(token(**changes), reviewer) == why
    assert reviewer.asked == []


@pytest.mark.parametrize(
    ("reviewed", "why"),
    [
        (None, ProofFailure.ACCOUNT_GONE),
        (Reviewed(ACCOUNT.username, "u", (URL, "other")), ProofFailure.ACCOUNT_GONE),
        (Reviewed(ACCOUNT.username, "u", ()), ProofFailure.ACCOUNT_GONE),
        (Reviewed("system:node:a", "u", (URL,)), ProofFailure.NOT_ACCEPTED),
        (Reviewed("system:serviceaccount:alone", "u", (URL,)), ProofFailure.NOT_ACCEPTED),
    ],
    ids=["no", "for others too", "for nobody", "no account", "half a name"],
)
async def test_what_the_api_server_may_say(reviewed: Reviewed | None, why: ProofFailure) -> None:
    """Anything but this audience and an account is a no."""
    assert await failure(token(), Reviewer(reviewed)) == why


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest word goes first."""
    monkeypatch.setattr(service_account, "CACHE_ENTRIES", 2)
    reviewer = Reviewer()
    checked, many = tokens(reviewer, Clock()), [token(jti=str(number)) for number in range(3)]
    for one in (*many, many[2], many[0]):
        await checked.verify(one)

    assert [many.index(parse(text)) for text, _, _ in reviewer.asked] == [0, 1, 2, 0]
    assert len(checked._cache) == 2

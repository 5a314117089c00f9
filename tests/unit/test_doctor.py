"""What the doctor says where a real server could hardly be brought to it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from broker.cli import release
from broker.cli.doctor import schema, settings, web
from broker.cli.doctor.canary import conclude
from broker.cli.doctor.findings import Finding, State, ok, problem, unknown
from broker.cli.doctor.objects import Seen
from broker.cli.doctor.token import Bound, Claims, Review, Signature, TokenFacts, claims_of, diagnose
from broker.cli.doctor.token_facts import verify
from broker.cli.token.jwt import UnverifiedToken
from broker.model.policies import TRIED
from broker.model.sensitive import Sensitive

Said = Callable[[str, str], Finding]


def _problem(identity: str, text: str) -> Finding:
    return problem(identity, text, "mend it")


NOW = datetime(2026, 11, 25, 9, tzinfo=UTC)
CLAIMS = Claims(
    issuer="https://issuer",
    audiences=("https://issuer",),
    namespace="shop",
    account="web",
    account_uid="u-1",
    bound=Bound("secret", "anchor", "u-2"),
    issued=NOW - timedelta(minutes=5),
    not_before=NOW - timedelta(minutes=5),
    expires=NOW + timedelta(minutes=10),
    jti="j-1",
)
FACTS = TokenFacts(
    claims=CLAIMS,
    here=NOW,
    there=NOW,
    issuer="https://issuer",
    signature=Signature.GOOD,
    account=Seen({"uid": "u-1"}),
    bound=Seen({"uid": "u-2"}),
    events=(),
    accepted=True,
    review=Review(authenticated=True),
    own_audience=Review(authenticated=True),
)


def _found(facts: TokenFacts) -> dict[str, Finding]:
    return {it.id: it for it in diagnose(facts)}


def test_an_audience_is_not_guessed_at() -> None:
    """A token that is refused, and that nobody reviewed, may be for the right audience or not."""
    refused = replace(FACTS, accepted=False, own_audience=Review(refusal="forbidden"))

    assert _found(refused)["token.audience"].state is State.UNKNOWN
    assert _found(replace(refused, issuer=""))["token.audience"].state is State.UNKNOWN


def test_a_token_without_an_iat_says_when_it_was_issued_in_words() -> None:
    """No API server makes one."""
    gone = _found(replace(FACTS, bound=Seen(), claims=replace(CLAIMS, issued=None)))

    assert "between the token was issued and now" in gone["token.anchor"].text


def test_claims_that_are_nonsense_are_read_as_nothing() -> None:
    """Whoever forges a token decides what is in it."""
    kubernetes = {"namespace": "shop", "serviceaccount": {"name": "web"}, "secret": "text"}
    claims = claims_of(UnverifiedToken({}, {"kubernetes.io": kubernetes, "aud": "one", "iat": "now", "exp": 1e99}))

    assert claims is not None
    assert (claims.audiences, claims.issued, claims.expires) == (("one",), None, None)
    assert claims.bound == Bound("secret", "", "")


@pytest.mark.parametrize(
    ("key", "signature"),
    [
        ({"kid": "other"}, Signature.UNKNOWN_KEY),
        ({"kid": "k"}, Signature.NOT_CHECKED),
        ({"kid": "k", "kty": "RSA", "alg": "RS256", "n": "x"}, Signature.NOT_CHECKED),
        ("no object", Signature.NOT_CHECKED),
    ],
)
def test_keys_that_cannot_be_used_check_nothing(key: Any, signature: Signature) -> None:
    """A key set that is broken is no proof against the token."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    token = jwt.encode({"sub": "x"}, private, algorithm="RS256", headers={"kid": "k"})

    assert verify(Sensitive(token), [key]) is signature


def test_a_crd_that_is_not_served_yet() -> None:
    """The API server takes a moment to serve a new one."""
    shipped = release.manifest("CustomResourceDefinition", schema.NAME)

    fresh = shipped | {"status": {"conditions": None}}

    assert "does not serve it" in schema.diagnose(shipped, shipped, "").text
    assert "does not serve it" in schema.diagnose(shipped, fresh, "").text


@asynccontextmanager
async def _served(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with suppress(OSError):
            await answer(writer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_server_that_is_silent_endless_or_rude_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some seconds, or a megabyte."""
    ended = asyncio.Event()

    async def silent(_: asyncio.StreamWriter) -> None:
        await ended.wait()

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2 * web.MAX_ANSWER_BYTES)
        await writer.drain()

    async def rude(_: asyncio.StreamWriter) -> None:
        """End the connection without a word."""

    tls = ssl.create_default_context()
    async with _served(rude) as url:
        broken = await web.get(url, tls)
    async with _served(endless) as url:
        large = await web.get(url, tls)
    monkeypatch.setattr(web, "DEADLINE_SECONDS", 0.2)
    async with _served(silent) as url:
        slow = await web.get(url, tls)
        ended.set()

    assert broken.failure
    assert large.failure == "its answer is too large"
    assert slow.failure == "it did not answer within 0.2 s"


@pytest.mark.parametrize(
    ("looks", "tried", "state"),
    [
        (ok, ok, State.OK),
        (ok, unknown, State.OK),
        (unknown, ok, State.OK),
        (_problem, ok, State.OK),
        (ok, _problem, State.PROBLEM),
        (_problem, unknown, State.PROBLEM),
        (unknown, unknown, State.UNKNOWN),
    ],
)
def test_what_a_policy_did_counts_before_how_it_looks(looks: Said, tried: Said, state: State) -> None:
    """The broker goes by what is refused, too; who may try nothing has the policy's text."""
    good, other = TRIED
    found = [ok(f"policy.{good}", ""), ok(f"policy.{good}.tried", "")]
    found += [looks(f"policy.{other}", "it looks so"), tried(f"policy.{other}.tried", "it does so")]

    assert conclude(found).state is state


def test_a_broker_that_was_told_of_no_policies_misses_none() -> None:
    """As its configuration says, in the ConfigMap."""
    absent = {"data": {"config.yaml": "admission: {policies: absent}"}}

    assert not settings.read(absent).policies_required
    assert settings.read({}).policies_required

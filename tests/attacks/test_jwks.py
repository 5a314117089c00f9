"""Issuers that are broken or hostile: their answers are bounded, and hurt nobody else."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from broker.errors import BrokerError, ProofError, ProofFailure
from broker.identity.fetch import MAX_BYTES, FileKeys, Web, WebKeys
from broker.identity.jose import ALL_ALGORITHMS, Unverified, parse, verify
from broker.identity.key_set import FRESH_SECONDS, RETRY_SECONDS, UNKNOWN_KEY_SECONDS, USABLE_SECONDS, KeySet
from broker.identity.oidc import OidcIssuer
from broker.metrics.counted import Metrics
from tests.support.issuer import Issuer, SigningKey

DISCOVERY = "/.well-known/openid-configuration"


@dataclass
class OwnClock:
    """A clock that stands still until it is moved."""

    seconds: float = 1000.0

    def now(self) -> datetime:
        """Return the real time: these tests ask for monotonic seconds only."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.seconds


@dataclass
class Asker:
    """A key set of a live issuer, on a clock of its own."""

    issuer: Issuer
    web: Web
    clock: OwnClock = field(default_factory=OwnClock)
    jwks_uri: str | None = None

    def __post_init__(self) -> None:
        source = WebKeys(self.web, self.issuer.url, self.jwks_uri, self.issuer.ca_file)
        self.keys = KeySet(self.issuer.url, source, self.clock, Metrics())

    async def find(self, **header: Any) -> None:
        """Verify a JWT of the issuer, or raise."""
        token = self.token(**header)
        verify(token, await self.keys.find(token), ALL_ALGORITHMS)

    def token(self, **header: Any) -> Unverified:
        """Return a JWT by the issuer's present key."""
        return parse(self.issuer.key.sign({"iss": self.issuer.url}, **header))

    async def refused(self, **header: Any) -> str:
        """Return why there is no key."""
        with pytest.raises(BrokerError) as caught:
            await self.find(**header)
        return caught.value.failure if isinstance(caught.value, ProofError) else caught.value.reason


@pytest_asyncio.fixture(loop_scope="session")
async def asker(tmp_path: Path) -> AsyncIterator[Asker]:
    """Start an issuer that behaves, so far."""
    async with Issuer.start(tmp_path / "issuer") as issuer, Web() as session:
        made = Asker(issuer, session)
        yield made
        await made.keys.close()


def answer(text: str, **headers: str) -> web.Response:
    """Return an answer with a status that may be a redirect's."""
    return web.Response(text=text, status=302 if "Location" in headers else 200, headers=headers)


async def test_jwks_of_10_mb(asker: Asker) -> None:
    """It is cut off at the bound, and not parsed."""
    keys = {"keys": [asker.issuer.key.jwk], "padding": "x" * 10_000_000}
    asker.issuer.answers["/keys"] = json.dumps(keys).encode()

    assert await asker.refused() == "issuer_unavailable"


async def test_jwks_without_an_end(asker: Asker) -> None:
    """Nor does it help not to say how long it is."""
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while request.transport and not request.transport.is_closing() and sent < 100 * MAX_BYTES:
            await response.write(b" " * 65536)
            await asyncio.sleep(0.001)
            sent += 65536
        return response

    asker.issuer.streams["/keys"] = endless
    assert await asker.refused() == "issuer_unavailable"
    assert sent < 100 * MAX_BYTES


@pytest.mark.parametrize("path", [DISCOVERY, "/keys"])
async def test_jwks_with_a_redirect(asker: Asker, path: str) -> None:
    """Not even to the issuer itself."""
    asker.issuer.answers[path] = lambda: answer("", Location=f"{asker.issuer.url}/elsewhere")
    asker.issuer.answers["/elsewhere"] = {"keys": [asker.issuer.key.jwk]}

    assert await asker.refused() == "issuer_unavailable"
    assert "/elsewhere" not in asker.issuer.asked


async def test_jwks_that_is_slow(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is for all of it; who comes meanwhile waits for the same answer."""
    monkeypatch.setattr("broker.identity.fetch.DEADLINE_SECONDS", 0.3)
    asker.issuer.delay_seconds = 5
    started = time.monotonic()

    answers = await asyncio.gather(*(asker.refused() for _ in range(20)))

    assert time.monotonic() - started < 2
    assert set(answers) == {"issuer_unavailable"}
    assert len(asker.issuer.asked) == 1


@pytest.mark.parametrize(
    "document",
    [
        {"keys": []},
        {},
        {"keys": None},
        [],
        "keys",
        {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "key-1"}]},
        {"keys": [{"kty": "RSA", "kid": "key-1", "n": "AQAB", "e": "AQAB"}]},
        {"keys": [{"kid": "key-1"}] * 101},
        [[[[]]]],
    ],
    ids=lambda document: json.dumps(document)[:30],
)
async def test_jwks_that_is_empty(asker: Asker, document: Any) -> None:
    """No keys, none that can verify, and shared secrets: never kept, so the next answer counts."""
    asker.issuer.answers["/keys"] = json.dumps(document).encode()
    assert await asker.refused() == "issuer_unavailable"

    del asker.issuer.answers["/keys"]
    asker.clock.seconds += RETRY_SECONDS
    await asker.find()


async def test_empty_jwks_does_not_replace_the_keys_that_are_known(asker: Asker) -> None:
    """An issuer that forgets its keys for a while hurts nobody who has one."""
    await asker.find()
    asker.issuer.answers["/keys"] = {"keys": []}
    asker.clock.seconds += FRESH_SECONDS
    await asker.find()
    await asyncio.sleep(0.3)

    assert asker.issuer.asked.count("/keys") == 2
    await asker.find()


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"[" * 200_000, b'{"keys": NaN}'], ids=lambda data: repr(data[:9])
)
async def test_jwks_that_is_no_json(asker: Asker, data: bytes) -> None:
    """Nothing of it gets out as an error of another kind."""
    asker.issuer.answers["/keys"] = data

    assert await asker.refused() == "issuer_unavailable"


@pytest.mark.parametrize(
    "uri",
    [
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/keys",
        "https://[::1]/keys",
        "http://127.0.0.1/keys",
        "file:///etc/passwd",
        "https://evil.example/keys",
        "{url}.evil.example/keys",
        "https://user@evil.example",
        "//evil.example/keys",
        "",
        None,
        7,
    ],
)
async def test_jwks_at_private_addresses(asker: Asker, uri: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Discovery leads to the issuer's own origin or nowhere: nobody else is even asked."""
    named = uri.format(url=asker.issuer.url) if isinstance(uri, str) else uri
    asker.issuer.answers[DISCOVERY] = {"issuer": asker.issuer.url, "jwks_uri": named}
    asked: list[str] = []
    get = asker.web.get

    async def noted(url: str, tls: Any) -> bytes:
        asked.append(url)
        return await get(url, tls)

    monkeypatch.setattr(asker.web, "get", noted)
    assert await asker.refused() == "issuer_unavailable"
    assert asked == [asker.issuer.url + DISCOVERY]


@pytest.mark.parametrize("issuer", ["https://other.example", "{url}/", None])
async def test_discovery_of_another_issuer(asker: Asker, issuer: str | None) -> None:
    """The document is the issuer's own, letter by letter (OpenID Connect Discovery, 4.3)."""
    named = issuer and issuer.format(url=asker.issuer.url)
    asker.issuer.answers[DISCOVERY] = {"issuer": named, "jwks_uri": f"{asker.issuer.url}/keys"}

    assert await asker.refused() == "issuer_unavailable"


async def test_issuer_with_another_certificate(asker: Asker, tmp_path: Path) -> None:
    """TLS is verified by the authority that the operator named."""
    async with Issuer.start(tmp_path / "other") as other:
        source = WebKeys(asker.web, asker.issuer.url, None, other.ca_file)
        with pytest.raises(OSError, match="certificate"):
            await source()


async def test_unknown_kid_refetches_at_most_once_a_minute(asker: Asker) -> None:
    """A flood of made-up keys is one request a minute, and a new key is found at the next."""
    await asker.find()
    asker.clock.seconds += UNKNOWN_KEY_SECONDS
    assert {await asker.refused(kid=f"made-up-{number}") for number in range(30)} == {ProofFailure.UNKNOWN_KEY}
    assert asker.issuer.asked.count("/keys") == 2

    asker.issuer.key = SigningKey.create("key-2")
    assert await asker.refused() == ProofFailure.UNKNOWN_KEY
    asker.clock.seconds += UNKNOWN_KEY_SECONDS
    await asker.find()
    assert asker.issuer.asked.count("/keys") == 3


async def test_withdrawn_key_ends_with_the_next_fetch(asker: Asker) -> None:
    """What the issuer publishes no more is refused once its keys are no longer fresh."""
    old = asker.token()
    await asker.find()
    asker.issuer.key = SigningKey.create("key-2")
    asker.clock.seconds += FRESH_SECONDS
    await asker.keys.find(old)  # the fetch goes on beside this request
    await asyncio.sleep(0.3)

    with pytest.raises(ProofError, match="unknown_key"):
        await asker.keys.find(old)


async def test_issuer_that_is_down(asker: Asker) -> None:
    """Known keys count for a day; then, and where none are known, clients are told to come back."""
    await asker.find()
    asker.issuer.answers["/keys"] = lambda: web.Response(status=500)
    asker.clock.seconds += USABLE_SECONDS - 1
    await asker.find()
    await asyncio.sleep(0.3)
    asker.clock.seconds += 1 + RETRY_SECONDS

    assert await asker.refused() == "issuer_unavailable"
    asked = len(asker.issuer.asked)
    assert await asker.refused() == "issuer_unavailable"
    assert len(asker.issuer.asked) == asked


async def test_caller_that_goes_away_does_not_end_the_fetch_of_others(asker: Asker) -> None:
    """Its cancellation is its own."""
    asker.issuer.delay_seconds = 0.1
    first = asyncio.create_task(asker.find())
    second = asyncio.create_task(asker.find())
    await asyncio.sleep(0.05)
    first.cancel()

    await second
    assert asker.issuer.asked.count("/keys") == 1


async def test_token_without_kid(asker: Asker) -> None:
    """It is clear which key is meant where there is one, and nowhere else."""
    await asker.find(kid=None)
    both = [asker.issuer.key.jwk, SigningKey.create("key-2").jwk]
    asker.issuer.answers["/keys"] = {"keys": both}
    asker.clock.seconds += USABLE_SECONDS

    assert await asker.refused(kid=None) == ProofFailure.UNKNOWN_KEY


async def test_keys_from_a_file(tmp_path: Path) -> None:
    """For issuers out of reach; a file that is gone for a while is an issuer that is down."""
    key, clock, file = SigningKey.create("key-1"), OwnClock(), tmp_path / "jwks.json"
    keys = KeySet("https://far.example", FileKeys(file), clock, Metrics())
    token = parse(key.sign({"iss": "https://far.example"}))
    with pytest.raises(BrokerError, match="issuer_unavailable"):
        await keys.find(token)
    file.write_text(json.dumps({"keys": [key.jwk]}))
    clock.seconds += RETRY_SECONDS

    verify(token, await keys.find(token), ALL_ALGORITHMS)


async def test_algorithm_that_the_operator_did_not_name(asker: Asker) -> None:
    """The key could verify it, and the issuer's entry does not let it."""
    issuer = OidcIssuer(asker.issuer.url, asker.keys, frozenset({"ES256", "RS512"}), 60, {})

    with pytest.raises(ProofError, match="algorithm_refused"):
        await issuer.verify(parse(asker.issuer.token("x")), OwnClock())
    assert asker.issuer.asked == []

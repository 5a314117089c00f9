"""An OIDC issuer on the loopback address, over TLS, which signs what it is told and can misbehave."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, Self

from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jwt.algorithms import RSAAlgorithm
from jwt.utils import base64url_encode

from tests.support.certificates import Authority
from tests.support.processes import free_port

SIGNED: list[str] = []
"""Every JWT that was signed here: none of them may ever be found in what a program says."""
JOBS = "/actions/jwt"
"""Where a job of GitHub gets its JWT."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An RSA key with its name."""

    key_id: str
    private: rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def create(cls, key_id: str) -> Self:
        """Make one of 2048 bits."""
        return cls(key_id, rsa.generate_private_key(public_exponent=65537, key_size=2048))

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half as issuers publish it."""
        public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return public | {"kid": self.key_id, "alg": "RS256", "use": "sig"}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """Return a JWT; what is None in the header is left out."""
        said = {"alg": "RS256", "typ": "JWT", "kid": self.key_id, **header}
        return self.sign_text({name: value for name, value in said.items() if value is not None}, json.dumps(claims))

    def sign_text(self, header: dict[str, Any], claims: str) -> str:
        """Return a JWT whose claims are a text, which no library would write."""
        parts = ".".join(base64url_encode(part.encode()).decode() for part in (json.dumps(header), claims))
        signature = self.private.sign(parts.encode(), padding.PKCS1v15(), hashes.SHA256())
        made = f"{parts}.{base64url_encode(signature).decode()}"
        SIGNED.append(made)
        return made


@dataclass
class Issuer:
    """Serves discovery, keys and jobs' JWTs; notes the requests' paths. ``answers`` replaces what a path says."""

    url: str
    ca_file: Path
    key: SigningKey = field(default_factory=lambda: SigningKey.create("key-1"))
    answers: dict[str, bytes | Callable[[], web.StreamResponse] | Mapping[str, Any]] = field(default_factory=dict)
    streams: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    request_token: str = field(default_factory=lambda: token_urlsafe(24), repr=False)
    claims: dict[str, Any] = field(default_factory=dict)
    """What jobs' JWTs say otherwise than usual."""
    delay_seconds: float = 0.0

    @classmethod
    @asynccontextmanager
    async def start(cls, folder: Path) -> AsyncIterator[Self]:
        """Serve until the block is left."""
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        authority = Authority.create(folder, "issuer-ca")
        files = authority.server("issuer")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        port = free_port()
        made = cls(f"https://127.0.0.1:{port}", authority.file)
        app = web.Application()
        app.router.add_get("/{path:.*}", made._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        try:
            yield made
        finally:
            await runner.cleanup()

    def config(self, **more: Any) -> dict[str, Any]:
        """Return how a broker's configuration lists it."""
        return {"issuer": self.url, "ca_file": str(self.ca_file), **more}

    def token(self, audience: Any, **claims: Any) -> str:
        """Return a JWT shaped like GitHub's; a claim that is None is left out."""
        now = int(time.time())
        standard = {
            "iss": self.url,
            "aud": audience,
            "sub": "repo:octo-org/shop:environment:production",
            "repository": "octo-org/shop",
            "repository_id": "123456",
            "repository_owner_id": "42",
            "environment": "production",
            "jti": f"jti-{time.monotonic_ns()}",
            "iat": now,
            "nbf": now - 300,
            "exp": now + 300,
        }
        return self.key.sign({name: value for name, value in (standard | claims).items() if value is not None})

    @property
    def job(self) -> dict[str, str]:
        """The environment in which GitHub starts a job that may have JWTs."""
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}{JOBS}?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self.request_token,
        }

    def _for_a_job(self, request: web.Request) -> dict[str, str]:
        if request.headers.get("Authorization") != f"Bearer {self.request_token}":
            raise web.HTTPUnauthorized
        return {"value": self.token(request.query["audience"], **self.claims)}

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        await asyncio.sleep(self.delay_seconds)
        if request.path in self.streams:
            return await self.streams[request.path](request)
        answer = self.answers.get(request.path)
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="application/json")
        if callable(answer):
            return answer()
        if request.path == "/.well-known/openid-configuration":
            document: Mapping[str, Any] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        elif request.path == "/keys":
            document = {"keys": [self.key.jwk]}
        elif request.path == JOBS:
            document = self._for_a_job(request)
        else:
            raise web.HTTPNotFound
        return web.Response(text=json.dumps(document if answer is None else answer), content_type="application/json")

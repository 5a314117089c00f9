"""A webhook that authorizes: an API server that asks it can decide, and cannot list what it decides by.

Source: https://kubernetes.io/docs/reference/access-authn-authz/webhook/
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import yaml
from aiohttp import web

from tests.support.certificates import Authority
from tests.support.processes import free_port


@dataclass
class Authorizer:
    """Allows what is in ``rights``: user, verb and resource, or in one namespace only what is in ``inside``.

    ``asked`` is what it was asked about.
    """

    flags: list[str]
    rights: set[tuple[str, str, str]] = field(default_factory=set)
    inside: set[tuple[str, str, str, str]] = field(default_factory=set)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def start(cls, folder: Path) -> AsyncIterator[Self]:
        """Serve; ``flags`` are those of an API server that asks it after RBAC, and remembers answers for a second."""
        authority, port = Authority.create(folder, "authorizer"), free_port()
        files, config = authority.server("authorizer"), folder / "authorizer.yaml"
        config.write_text(yaml.safe_dump(_kubeconfig(f"https://127.0.0.1:{port}/", authority.file)))
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(files.certificate, files.key)
        authorizer = cls(
            [
                "--authorization-mode=Webhook",  # added to RBAC
                f"--authorization-webhook-config-file={config}",
                "--authorization-webhook-version=v1",
                "--authorization-webhook-cache-authorized-ttl=1s",
                "--authorization-webhook-cache-unauthorized-ttl=1s",
            ]
        )
        app = web.Application()
        app.router.add_post("/", authorizer._review)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        try:
            yield authorizer
        finally:
            await runner.cleanup()

    def about(self, user: str) -> list[tuple[str, str]]:
        """Return what it was asked about a user: verb and resource."""
        return [(verb, resource) for who, verb, resource in self.asked if who == user]

    async def _review(self, request: web.Request) -> web.Response:
        review = await request.json()
        spec = review["spec"]
        attributes = spec.get("resourceAttributes", {})
        right = (spec.get("user", ""), attributes.get("verb", ""), attributes.get("resource", ""))
        self.asked.append(right)
        allowed = right in self.rights or (*right, attributes.get("namespace", "")) in self.inside
        return web.json_response(review | {"status": {"allowed": allowed}})


def _kubeconfig(server: str, ca_file: Path) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "webhook", "cluster": {"server": server, "certificate-authority": str(ca_file)}}],
        "users": [{"name": "api-server", "user": {}}],
        "contexts": [{"name": "webhook", "context": {"cluster": "webhook", "user": "api-server"}}],
        "current-context": "webhook",
    }

"""The cluster, as the user's own kubeconfig reaches it; the one module that knows kubernetes-asyncio."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from broker.cli import impersonation
from broker.cli.errors import CommandError, ExitCode, usage
from broker.cli.manifests import Manifest
from broker.cli.refusals import Attempt, discovered, explain
from broker.cli.resources import Kind, path
from broker.model.api_resources import DISCOVERY_TYPE, Catalogue, parse_catalogue
from broker.model.sensitive import Sensitive

DEADLINE_SECONDS = 30.0
LOGIN_SECONDS = 120.0
"""A kubeconfig may run a plugin that asks for a password or opens a browser."""

PAGE = 500
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
_TRUST = ("ssl_ca_cert", "verify_ssl", "disable_strict_ssl_verification", "tls_server_name", "proxy")
"""What a kubeconfig says about the server, and not about its user."""

_UNUSABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, AssertionError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said, whatever its status; ``date`` is its own clock's, as the header has it."""

    status: int
    document: Manifest
    date: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """Which kubeconfig (paths as KUBECONFIG lists them; empty for kubectl's default), and which context."""

    kubeconfig: str
    context: str | None


class Cluster:
    """Reads and writes objects, one call at a time, each with a deadline. All methods raise CommandError."""

    def __init__(self, client: Any, namespace: str, failures: tuple[type[Exception], ...]) -> None:
        self._client = client
        self._failures = failures
        self.namespace = namespace
        """The namespace of the kubeconfig's context."""
        self.server: str = client.configuration.host
        """Where the kubeconfig's API server is."""
        self.impersonates: bool = impersonation.USER in client.rest_client.pool_manager.headers
        """Whether the kubeconfig's user acts in another's name (``as``)."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """Return an object, or None where there is none."""
        status, document = await self._call("GET", path(kind, namespace, name))
        if status == HTTPStatus.NOT_FOUND and document.get("details", {}).get("name") == name:
            return None
        return _checked(status, document, Attempt("get", kind, namespace, name))

    async def list(self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None) -> list[Manifest]:
        """Return all objects of a kind that carry the labels, page by page."""
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        query, items = {"labelSelector": selector, "limit": str(PAGE), "continue": ""}, []
        while True:
            status, document = await self._call("GET", path(kind, namespace), query=query)
            document = _checked(status, document, Attempt("list", kind, namespace))
            items += [{"apiVersion": document["apiVersion"], "kind": kind.value.kind} | it for it in document["items"]]
            query["continue"] = document["metadata"].get("continue", "")
            if not query["continue"]:
                return items

    async def create(self, manifest: Manifest) -> Manifest | None:
        """Make an object and return it, or None where one of that name is there already."""
        kind, namespace, name = _address(manifest)
        status, document = await self._call("POST", path(kind, namespace), manifest)
        if status == HTTPStatus.CONFLICT and document.get("reason") == "AlreadyExists":
            return None
        return _checked(status, document, Attempt("create", kind, namespace, name))

    async def patch(self, found: Manifest, changes: Manifest) -> Manifest:
        """Change an object by a JSON merge patch (RFC 7386), whatever it has become since it was found."""
        kind, namespace, name = _address(found)
        answer = await self._call("PATCH", path(kind, namespace, name), changes, content_type=MERGE_PATCH)
        return _checked(*answer, Attempt("patch", kind, namespace, name))

    async def replace(self, found: Manifest, where: str, value: Any) -> Manifest:
        """Put a value in its place (a JSON pointer, RFC 6901), if nobody has changed the object's spec since.

        By a JSON patch (RFC 6902) with tests, since a resource version changes with each write of the status too.
        """
        kind, namespace, name = _address(found)
        metadata = found["metadata"]
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
            {"op": "test", "path": "/metadata/generation", "value": metadata["generation"]},
            {"op": "add", "path": where, "value": value},
        ]
        status, document = await self._call("PATCH", path(kind, namespace, name), patch, content_type=JSON_PATCH)
        if status == HTTPStatus.UNPROCESSABLE_ENTITY and _test_failed(document):
            status, document = HTTPStatus.CONFLICT, {"message": "the object has been modified"}
        return _checked(status, document, Attempt("patch", kind, namespace, name))

    async def delete(self, found: Manifest) -> bool:
        """Delete exactly this object; False where it is gone, or another one has its name."""
        kind, namespace, name = _address(found)
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": found["metadata"]["uid"]},
        }
        status, document = await self._call("DELETE", path(kind, namespace, name), options)
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
            return False
        _checked(status, document, Attempt("delete", kind, namespace, name))
        return True

    async def catalogue(self) -> Catalogue:
        """Return what the cluster serves."""
        answers = [await self._call("GET", where, accept=DISCOVERY_TYPE) for where in ("/api", "/apis")]
        try:
            return parse_catalogue(*(discovered(*answer) for answer in answers))
        except ValueError as error:
            raise CommandError(f"what the API server serves cannot be read: {error}") from None

    async def try_out(self, manifest: Manifest) -> None:
        """Let the API server judge an object as if it were applied; nothing is kept."""
        kind, namespace, name = _address(manifest)
        query = {"dryRun": "All", "fieldManager": "tokenbroker-check", "force": "true"}
        answer = await self._call("PATCH", path(kind, namespace, name), manifest, query=query, content_type=APPLY)
        _checked(*answer, Attempt("patch", kind, namespace, name))

    async def ask(
        self,
        method: str,
        where: str,
        body: Manifest | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make one call, such as the POST of a review or the GET of a raw path; a refusal is an answer, too."""
        return await self._answer(method, where, body, query=query, headers=headers)

    @asynccontextmanager
    async def bearer(self, token: Sensitive) -> AsyncIterator["Cluster"]:
        """Yield the same API server, asked with a token and nothing else of the kubeconfig's user."""
        from kubernetes_asyncio import client  # noqa: PLC0415 - loaded already, by connect

        mine = self._client.configuration
        settings = client.Configuration(host=mine.host, api_key={"BearerToken": f"Bearer {token.reveal()}"})
        for name in _TRUST:
            setattr(settings, name, getattr(mine, name))
        async with client.ApiClient(settings) as opened:
            yield Cluster(opened, self.namespace, self._failures)

    async def _call(
        self,
        method: str,
        where: str,
        body: Manifest | Sequence[Manifest] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> tuple[int, Manifest]:
        answer = await self._answer(
            method, where, body, query=query, headers={"Accept": accept, "Content-Type": content_type}
        )
        return answer.status, answer.document

    async def _answer(
        self,
        method: str,
        where: str,
        body: Manifest | Sequence[Manifest] | None,
        *,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        sent = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                response = await self._client.call_api(
                    where,
                    method,
                    query_params=[(key, value) for key, value in (query or {}).items() if value],
                    header_params=sent,
                    body=body,
                    auth_settings=["BearerToken"],
                    _preload_content=False,
                )
                return Answer(response.status, _document(await response.read()), response.headers.get("Date", ""))
        except TimeoutError:
            raise _unreachable(f"it did not answer within {DEADLINE_SECONDS:g} s") from None
        except self._failures as error:
            raise _unreachable(str(error)) from None


@asynccontextmanager
async def connect(access: Access) -> AsyncIterator[Cluster]:
    """Yield the cluster of a kubeconfig; its exec plugin, if it has one, is run now. Raises CommandError."""
    # They take more than a second and 100 MB to load, which commands that ask no cluster should not pay.
    from aiohttp import ClientError  # noqa: PLC0415
    from kubernetes_asyncio import client, config  # noqa: PLC0415

    logging.getLogger("kubernetes_asyncio").setLevel(logging.CRITICAL)  # its debug log shows tokens
    settings, files = client.Configuration(), _existing(access.kubeconfig)
    try:
        async with asyncio.timeout(LOGIN_SECONDS):
            loader = await config.load_kube_config(files, access.context, client_configuration=settings)
        context: Any = loader.current_context
        namespace = context["context"].get("namespace") or "default"
        others_name = impersonation.headers(_user(config.kube_config.KubeConfigMerger(files).config, context))
        opened = client.ApiClient(settings)
    except TimeoutError:
        raise CommandError("the kubeconfig's login plugin did not end in time.", ExitCode.UNAUTHENTICATED) from None
    except yaml.YAMLError:  # its message quotes the file
        raise usage(f"the kubeconfig {files} is not valid YAML.") from None
    except (config.ConfigException, *_UNUSABLE) as error:
        raise usage(f"the kubeconfig {files} cannot be used: {error}.") from None
    async with opened:
        opened.rest_client.pool_manager.headers.extend(others_name)  # for each request; ApiClient takes no name twice
        yield Cluster(opened, namespace, (ClientError, OSError))


def _user(merged: Any, context: Mapping[str, Any]) -> Manifest:
    """Return what a kubeconfig says of the context's user, whose ``as`` the loader passes over."""
    user = merged["users"].get_with_name(context["context"].get("user"), safe=True)
    return (user.safe_get("user") if user else None) or {}


def _existing(kubeconfig: str) -> str:
    files = kubeconfig or str(Path.home() / ".kube" / "config")
    if not any(Path(file).expanduser().is_file() for file in files.split(":") if file):
        raise usage(f"there is no kubeconfig {files}: name one with --kubeconfig or KUBECONFIG.")
    return files


def _address(manifest: Manifest) -> tuple[Kind, str | None, str]:
    metadata = manifest["metadata"]
    return Kind.named(manifest["kind"]), metadata.get("namespace"), metadata["name"]


def _document(body: bytes) -> Manifest:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {"message": body[:200].decode(errors="replace")}


def _test_failed(document: Manifest) -> bool:
    """Tell a JSON patch whose test did not hold from one that the schema refuses: both are 422, this one is bare."""
    return not document.get("details")


def _checked(status: int, document: Manifest, attempt: Attempt) -> Manifest:
    if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        raise explain(status, str(document.get("message") or f"HTTP {status}"), attempt)
    return document


def _unreachable(why: str) -> CommandError:
    return CommandError(f"the API server cannot be reached: {why}.", ExitCode.UNAVAILABLE)

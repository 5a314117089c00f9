"""``tokenbroker client suspend`` and ``resume``: done when the broker has shown that it is."""

from dataclasses import dataclass
from typing import Annotated

import typer

from broker.cli import options as opt
from broker.cli.client.anchors import HANDED_OUT, IN_VAULT, anchors_of, warnings
from broker.cli.cluster import Access, Cluster, connect
from broker.cli.errors import CommandError, ExitCode, RefusedError
from broker.cli.finding import addressed, find_client
from broker.cli.manifests import Manifest
from broker.cli.polling import rounds
from broker.cli.run import run

_SUSPENDING, _SUSPENDED, _INVALID = "Suspending", "Suspended", "InvalidSpec"
"""Reasons of Ready while tokens cannot be ended, when they have been, and where a spec that is not valid goes first."""

Wait = Annotated[
    int, typer.Option(metavar="SECONDS", min=0, help="How long the broker has to show that it is done; 0: none.")
]


def suspend(
    name: opt.Client,
    *,
    namespace: opt.Namespace = None,
    wait: Wait = 45,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """Stop issuing tokens for a client, and end all that it has, also in Vault, within about 15 s."""

    async def work() -> None:
        async with connect(Access(kubeconfig, context)) as cluster:
            found = await _set(cluster, await find_client(cluster, namespace, name), suspended=True)
            for warning in warnings(found):
                typer.echo(f"warning: {warning}", err=True)
            if not wait:
                return typer.echo(f"suspended: {_id(found)}; its tokens live until a broker has seen it", err=True)
            await _until_ended(cluster, found, wait)
            end = "the broker has ended its tokens, which are refused within about 15 s"
            return typer.echo(f"suspended: {_id(found)}; {end}", err=True)

    run(work())


def resume(
    name: opt.Client,
    *,
    namespace: opt.Namespace = None,
    wait: Wait = 45,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """Issue tokens again for a client that was suspended. Those that it had stay ended."""

    async def work() -> None:
        async with connect(Access(kubeconfig, context)) as cluster:
            found = await _set(cluster, await find_client(cluster, namespace, name), suspended=False)
            if not wait:
                return typer.echo(f"resumed: {_id(found)}; it gets tokens when a broker has seen it", err=True)
            await _until_served(cluster, found, wait)
            return typer.echo(f"resumed: {_id(found)}; the broker issues tokens for it", err=True)

    run(work())


@dataclass(frozen=True, slots=True)
class Ready:
    """What the condition Ready says; empty where it is not about the client as it is now."""

    status: str = ""
    reason: str = ""
    message: str = ""


def ready(found: Manifest) -> Ready:
    """Return what a TokenClient's status says about it as it is now."""
    status = found.get("status", {})
    if status.get("observedGeneration", 0) < found["metadata"]["generation"]:
        return Ready()
    said = (it for it in status.get("conditions", ()) if it["type"] == "Ready")
    return next((Ready(it["status"], it["reason"], it.get("message", "")) for it in said), Ready())


async def _set(cluster: Cluster, found: Manifest, *, suspended: bool) -> Manifest:
    # Left out again rather than false, so that the resource is as it was before.
    return await cluster.patch(found, {"spec": {"suspend": True if suspended else None}})


async def _until_ended(cluster: Cluster, found: Manifest, wait: int) -> None:
    known = f"no broker has shown within {wait} s that it has seen it"
    async for _ in rounds(wait):
        now = await _again(cluster, found)
        said = ready(now)
        if said.reason == _SUSPENDING:
            known = f"the broker has not ended everything within {wait} s. It says: {said.message.rstrip('.')}"
        if said.reason in {_SUSPENDED, _INVALID}:
            left = await _anchors_left(cluster, now)
            if left == 0 or (left is None and said.reason == _SUSPENDED):
                return
            known = _not_ended(left, wait)
    raise CommandError(
        f"{_id(found)} is suspended, but {known}. Tokens that it was handed live until a broker ends them, or they "
        f"expire. `tokenbroker client revoke-all --now {addressed(found)}` ends them without one; "
        "`tokenbroker doctor --install` says what is wrong.",
        ExitCode.UNAVAILABLE,
    )


async def _anchors_left(cluster: Cluster, found: Manifest) -> int | None:
    """Return how many anchors there still are; None for who may not list Secrets, and has the broker's word alone.

    The broker deletes those at the top, and the garbage collector those below, a moment later.
    """
    try:
        return len(await anchors_of(cluster, found, (*HANDED_OUT, *IN_VAULT)))
    except RefusedError:
        return None


def _not_ended(left: int | None, wait: int) -> str:
    if left is None:
        return "it is not valid, for which a broker does not say whether it has ended its tokens"
    return f"its anchors were still there after {wait} s"


async def _until_served(cluster: Cluster, found: Manifest, wait: int) -> None:
    said = Ready()
    async for _ in rounds(wait):
        now = await _again(cluster, found)
        said = ready(now)
        if said.status == "True":
            return
    client = _id(found)
    if not said.status:
        known = f"no broker has shown within {wait} s that it has seen it. `tokenbroker doctor --install` says why."
        raise CommandError(f"{client} is suspended no more, but {known}", ExitCode.UNAVAILABLE)
    raise CommandError(
        f"{client} is suspended no more, but nothing is issued for it: {said.reason}. "
        f"`tokenbroker doctor --client {client}` says why."
    )


async def _again(cluster: Cluster, found: Manifest) -> Manifest:
    return await find_client(cluster, found["metadata"]["namespace"], found["metadata"]["name"])


def _id(found: Manifest) -> str:
    return f"{found['metadata']['namespace']}/{found['metadata']['name']}"

"""Makes the objects of a client: all of them or none, and never somebody else's."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

import typer

from broker.cli.client.proofs import digests, without_secrets
from broker.cli.cluster import Cluster
from broker.cli.errors import CommandError
from broker.cli.manifests import Manifest, NewClient, manifests, title
from broker.cli.resources import Kind


@dataclass(frozen=True, slots=True)
class Outcome:
    """One object, and whether it was made now or had been made before."""

    manifest: Manifest
    created: bool


async def create_client(cluster: Cluster, new: NewClient) -> list[Outcome]:
    """Make all objects of a client, or none.

    Objects that an earlier run of the same command made are left as they are. Raises CommandError for any
    other object of the same name; then what was made in this run is deleted again.
    """
    await _check_account(cluster, new)
    async with AsyncExitStack() as undo:
        outcomes = [await _ensure(cluster, manifest, undo) for manifest in manifests(new)]
        undo.pop_all()
    return outcomes


async def _check_account(cluster: Cluster, new: NewClient) -> None:
    if new.account.create:
        return
    if await cluster.get(Kind.SERVICE_ACCOUNT, new.id.namespace, new.account.name) is None:
        raise CommandError(
            f"there is no service account {new.account.name!r} in namespace {new.id.namespace}: "
            "add --create to make it."
        )


async def _ensure(cluster: Cluster, manifest: Manifest, undo: AsyncExitStack) -> Outcome:
    created = await cluster.create(manifest)
    if created is not None:
        undo.push_async_callback(_take_back, cluster, created)
        return Outcome(created, created=True)
    kind, metadata = Kind.named(manifest["kind"]), manifest["metadata"]
    found = await cluster.get(kind, metadata.get("namespace"), metadata["name"])
    if found is None:
        raise CommandError(f"{title(manifest)} vanished while this ran: run the command again.")
    _check_ours(manifest, found)
    return Outcome(found, created=False)


async def _take_back(cluster: Cluster, created: Manifest) -> None:
    try:
        await cluster.delete(created)
    except CommandError as error:
        typer.echo(f"warning: {title(created)} was made and could not be deleted again: {error}", err=True)
    else:
        typer.echo(f"undone: {title(created)}", err=True)


def _check_ours(wanted: Manifest, found: Manifest) -> None:
    marks = found["metadata"].get("labels", {})
    if any(marks.get(key) != value for key, value in wanted["metadata"]["labels"].items()):
        raise CommandError(
            f"{title(wanted)} exists already and was not made by tokenbroker for this client; "
            f"it is left alone. {_way_out(wanted)}"
        )
    if content(found) != content(wanted):
        raise CommandError(
            f"{title(wanted)} was made for this client with other content; it is left alone. "
            "Run `tokenbroker client remove` first, or change it with kubectl or in git."
        )


def _way_out(wanted: Manifest) -> str:
    if wanted["kind"] == Kind.SERVICE_ACCOUNT.value.kind:
        return "Leave out --create to use that account, or name another one."
    return "Choose another client name, or delete that object if nobody needs it."


def content(manifest: Manifest) -> Manifest:
    """Return what an object is about: not who wrote it when, which secrets it has now, or a suspension."""
    parts: Manifest = {key: manifest[key] for key in ("rules", "roleRef", "subjects") if key in manifest}
    spec = dict(manifest.get("spec", {}))
    spec.pop("suspend", None)
    proofs = spec.pop("authentication", None)
    return {**parts, "spec": spec, "proofs": without_secrets(proofs), "secret": bool(digests(proofs))}

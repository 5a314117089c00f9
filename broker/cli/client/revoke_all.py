"""``tokenbroker client revoke-all``: end a client's tokens with the user's own rights, and see new ones made."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
from broker.model.anchor import AnchorKind
from broker.model.client import ROTATE_REQUESTED, Revocation
from broker.model.times import timestamp

WAIT_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class Before:
    """The client as it was, and what was deleted: UIDs of anchors."""

    found: Manifest
    ended: frozenset[str]


def revoke_all(
    name: opt.Client,
    *,
    namespace: opt.Namespace = None,
    now: Annotated[
        bool,
        typer.Option("--now", help="Also what is in Vault: readers meet a 401 until they have read the new version."),
    ] = False,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """End all tokens that a client was handed, and replace those in Vault; it gets new ones at once."""

    async def work() -> None:
        async with connect(Access(kubeconfig, context)) as cluster:
            found = await find_client(cluster, namespace, name)
            anchors = await _ended(cluster, found, (*HANDED_OUT, *IN_VAULT) if now else HANDED_OUT)
            await cluster.patch(found, {"metadata": {"annotations": {ROTATE_REQUESTED: rounded_up(datetime.now(UTC))}}})
            typer.echo(_told(anchors, now=now), err=True)
            for warning in warnings(found):
                typer.echo(f"warning: {warning}", err=True)
            await _until_replaced(cluster, Before(found, frozenset(it["metadata"]["uid"] for it in anchors)))

    run(work())


def rounded_up(moment: datetime) -> str:
    """Return a time as the annotation has it: a version that was issued within this second is asked for anew, too."""
    whole = moment.replace(microsecond=0)
    later = whole if whole == moment else whole + timedelta(seconds=1)
    return timestamp(later)


def missing(before: Before, now: Manifest, grant_anchors: list[Manifest]) -> list[str]:
    """Return what the broker has not shown yet."""
    made = sum(it["metadata"]["uid"] not in before.ended for it in grant_anchors)
    bound = sum(it.get("revocation") != Revocation.NONE for it in before.found["spec"]["grants"])
    old, new = _versions(before.found), _versions(now)
    late = [it["name"] for it in before.found["spec"]["grants"] if "vault" in it and not _newer(it["name"], old, new)]
    anchors = ["new anchors of its grants"] if made < bound else []
    return [*anchors, *(f"a new version in Vault of grant {name}" for name in late)]


async def _ended(cluster: Cluster, found: Manifest, kinds: tuple[AnchorKind, ...]) -> list[Manifest]:
    """Delete a client's anchors of these kinds, and return them."""
    try:
        anchors = await anchors_of(cluster, found, kinds)
        for anchor in anchors:
            await cluster.delete(anchor)
    except RefusedError as error:
        client = addressed(found)
        hint = f"`tokenbroker client suspend {client}` ends all its tokens too, and needs only patch on tokenclients."
        raise CommandError(f"{error} Ending tokens here needs list and delete on secrets; {hint}") from None
    return anchors


def _told(anchors: list[Manifest], *, now: bool) -> str:
    if now:
        rest = "what is in Vault has ended with it, and readers meet a 401 until they have read the new version."
    else:
        rest = (
            "what is in Vault is replaced, and lives on for as long as readers may take to look again (--now ends it)."
        )
    return f"deleted {len(anchors)} anchors: what was handed out is refused within about 15 s; {rest}"


async def _until_replaced(cluster: Cluster, before: Before) -> None:
    metadata, left = before.found["metadata"], ["anything"]
    if before.found["spec"].get("suspend"):
        return typer.echo("the client is suspended: nothing new is made for it.", err=True)
    async for _ in rounds(WAIT_SECONDS):
        now = await find_client(cluster, metadata["namespace"], metadata["name"])
        left = missing(before, now, await anchors_of(cluster, before.found, HANDED_OUT[:1]))
        if not left:
            return typer.echo(
                "the broker has made new anchors, and new versions in Vault where there are any.", err=True
            )
    raise CommandError(
        f"the broker has not shown within {WAIT_SECONDS:g} s: {', '.join(left)}. What was deleted has ended all the "
        "same; `tokenbroker client show` says why nothing new is made.",
        ExitCode.UNAVAILABLE,
    )


def _versions(found: Manifest) -> dict[str, int]:
    return {it["name"]: it.get("vault", {}).get("version", 0) for it in found.get("status", {}).get("grants", [])}


def _newer(name: str, old: dict[str, int], new: dict[str, int]) -> bool:
    return new.get(name, 0) > old.get(name, 0)

"""A client's anchors as somebody with rights in its namespace sees them, and what does not hang on any."""

from broker.cli.cluster import Cluster
from broker.cli.manifests import Manifest, labels
from broker.cli.resources import Kind
from broker.model.anchor import ANCHOR_LABEL, ANCHOR_TYPE, AnchorKind
from broker.model.client import Revocation

HANDED_OUT = (AnchorKind.GRANT, AnchorKind.BUCKET, AnchorKind.TOKEN)
IN_VAULT = (AnchorKind.VAULT, AnchorKind.VERSION)
"""Kinds of anchors, from the top: what hangs below one that is deleted cannot be made any more."""


async def anchors_of(cluster: Cluster, found: Manifest, kinds: tuple[AnchorKind, ...]) -> list[Manifest]:
    """Return a TokenClient's anchors of these kinds, in their order. Raises CommandError."""
    metadata = found["metadata"]
    secrets = await cluster.list(Kind.SECRET, metadata["namespace"], labels(metadata["name"]))
    known = [
        it for it in secrets if it.get("type") == ANCHOR_TYPE and it["metadata"]["labels"].get(ANCHOR_LABEL) in kinds
    ]
    return sorted(known, key=lambda it: kinds.index(it["metadata"]["labels"][ANCHOR_LABEL]))


def warnings(found: Manifest) -> list[str]:
    """Return for which grants no deletion of anchors ends everything."""
    strong = {it["name"] for it in found.get("status", {}).get("grants", []) if it.get("strong")}
    unbound = [it["name"] for it in found["spec"]["grants"] if it.get("revocation") == Revocation.NONE]
    return [
        *(f"tokens of grant {name} are bound to nothing (revocation: None) and live on." for name in unbound),
        *(f"the account of grant {name} is strong: what it has made for itself lives on." for name in sorted(strong)),
    ]

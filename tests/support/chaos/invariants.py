"""What must hold after every fault, at the API server, in Vault and in the audit log."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from broker.kube.token_requests import unverified_claims
from broker.model.stored_copy import CopyLabel
from broker.vault.label import read_label
from tests.support.broker import Tenant
from tests.support.chaos.ledger import AuditTail
from tests.support.chaos.load import VaultApp
from tests.support.kept import ANCHORS, Kept
from tests.support.lab import Lab

LABELLED_SECONDS = 3.0
"""Within this a version has its label, which is written right after it."""

KEPT_VERSIONS = 10
"""So many versions Vault keeps, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy in Vault whose versions an app has read."""

    app: VaultApp

    async def broken(self, lab: Lab, tenant: Tenant, audit: AuditTail) -> list[str]:
        """Return what does not hold of it."""
        status, answer, label = await self._described(lab)
        if status != 200:
            return [f"{self.app.what}: its metadata is gone ({status})"]
        versions, newest = answer["data"]["versions"], int(answer["data"]["current_version"])
        found = [f"{self.app.what}: {one}" for one in gaps(versions, newest, self.app.spoiled)]
        tokens = self._tokens(Kept(lab, tenant), label, newest, audit)
        return found + [f"{self.app.what}: {one}" async for one in tokens]

    async def _tokens(self, kept: Kept, label: CopyLabel | None, newest: int, audit: AuditTail) -> AsyncIterator[str]:
        if label is None or label.version != newest:
            yield f"version {newest} is described as {label.version if label else 'nothing'}"
            return
        for version in {newest} | ({max(1, newest - 1)} - self.app.spoiled):
            held = await self.app.token(version)
            if held is None or not await kept.accepted(held[1]):
                yield f"version {version} of {newest} is not accepted"
            elif len(audit.of(held[1])) != 1:
                yield f"version {version} has {len(audit.of(held[1]))} audit records"
            elif version == newest and unverified_claims(held[1])["jti"] != label.jti:
                yield f"the label of version {version} is about another token"
        if label.expires_at <= datetime.now(UTC):
            yield f"version {newest} has expired"

    async def _described(self, lab: Lab) -> tuple[int, dict[str, Any], CopyLabel | None]:
        """Read a copy's metadata, again for a moment where its newest version has no label yet: the load goes on."""
        end = time.monotonic() + LABELLED_SECONDS
        while True:
            status, answer, label = await _metadata(lab, self.app)
            described = label is not None and label.version == answer["data"]["current_version"]
            if described or status != 200 or time.monotonic() > end:
                return status, answer, label
            await asyncio.sleep(LABELLED_SECONDS / 20)

    async def label(self, lab: Lab) -> CopyLabel | None:
        """Return what stands next to the newest version, or None where Vault does not say."""
        return (await _metadata(lab, self.app))[2]


def gaps(versions: dict[str, Any], newest: int, spoiled: Collection[int]) -> Iterable[str]:
    """Yield what is not as it should be of a copy's versions: none is missing, none was deleted."""
    there = sorted(map(int, versions))
    if there != list(range(there[0], newest + 1)) or (there[0] > 1 and len(there) < KEPT_VERSIONS):
        yield f"versions {there} of {newest} are there"
    for number, one in versions.items():
        if int(number) not in spoiled and (one["destroyed"] or one["deletion_time"]):
            yield f"version {number} was deleted"


async def _metadata(lab: Lab, app: VaultApp) -> tuple[int, dict[str, Any], CopyLabel | None]:
    """Return what Vault answers about a copy, and the label that stands next to its newest version."""
    status, answer = await lab.vault.api("GET", f"secret/metadata/{app.path}")
    return status, answer, read_label(answer["data"]["custom_metadata"] or {}) if status == 200 else None


async def anchors(lab: Lab, namespace: str) -> list[dict[str, Any]]:
    """Return all anchors in a namespace."""
    status, found = await lab.cluster.request("GET", f"/api/v1/namespaces/{namespace}/{ANCHORS}")
    if status != 200:
        raise RuntimeError(f"anchors of {namespace} cannot be listed: {status}")
    return list(found["items"])


async def left_of(lab: Lab, tenant: Tenant) -> str:
    """Return what is left of a namespace's clients: TokenClients, copies in Vault, anchors. Empty is nothing.

    A copy without a version is left, too: only its metadata says that it was there. Raises RuntimeError where the API
    server or Vault does not tell.
    """
    status, found = await lab.cluster.request("GET", tenant.path)
    if status != 200:
        raise RuntimeError(f"TokenClients of {tenant.namespace} cannot be listed: {status}")
    folder = f"tokenbroker/lab/{tenant.namespace}"
    listed, answer = await lab.vault.api("GET", f"secret/metadata/{folder}?list=true")
    if listed not in {200, 404}:
        raise RuntimeError(f"copies of {tenant.namespace} cannot be listed: {listed}")
    left = {
        "TokenClients": [it["metadata"]["name"] for it in found["items"]],
        "copies in Vault": answer["data"]["keys"] if listed == 200 else [],
        "anchors": [it["metadata"]["name"] for it in await anchors(lab, tenant.namespace)],
    }
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in left.items() if names)


@dataclass(frozen=True, slots=True)
class Explained:
    """Which anchors there have to be: of grants at the top, of versions that labels name, of tokens handed out.

    ``unknown`` is how many tokens may have been handed out to callers who never got the answer; ``forgotten`` versions
    may have an anchor, or none.
    """

    tops: dict[str, int]
    """By client and kind: how many."""
    versions: frozenset[str]
    tokens: Collection[str]
    unknown: int
    forgotten: Collection[str] = ()

    def unexplained(self, found: list[dict[str, Any]]) -> str:
        """Return how what there is differs, or nothing."""
        named = [(it["metadata"]["labels"], it["metadata"]) for it in found]
        tops: dict[str, int] = {}
        for labels, _ in named:
            kind = labels["tokenbroker.dev/anchor"]
            if kind not in {"version", "bucket", "token"}:
                key = f"{labels['tokenbroker.dev/client']} {kind}"
                tops[key] = tops.get(key, 0) + 1
        names = {meta["uid"]: meta["name"] for labels, meta in named if labels["tokenbroker.dev/anchor"] == "version"}
        versions = {*names}
        tokens = {
            meta["name"].rpartition("-t")[2] for labels, meta in named if labels["tokenbroker.dev/anchor"] == "token"
        }
        missing, more = {*self.tokens} - tokens, tokens - {*self.tokens}
        facts = {
            "at the top": "" if tops == self.tops else f"{tops} instead of {self.tops}",
            "versions": _difference(versions - {*self.forgotten}, self.versions - {*self.forgotten}, names),
            "tokens without an anchor": ", ".join(sorted(missing)),
            "anchors of no token": "" if len(more) <= self.unknown else ", ".join(sorted(more)),
        }
        return "; ".join(f"{what}: {difference}" for what, difference in facts.items() if difference)


def _difference(found: set[str], wanted: frozenset[str], names: Mapping[str, str]) -> str:
    more = sorted(names[uid] for uid in found - wanted)
    return "" if found == wanted else f"{more} too many, {sorted(wanted - found)} missing"


async def named_versions(lab: Lab, apps: Iterable[VaultApp]) -> frozenset[str]:
    """Return the UIDs of the anchors that labels in Vault name below those of their grants."""
    uids: set[str] = set()
    for app in apps:
        _, _, label = await _metadata(lab, app)
        if label is not None:
            uids |= {anchor.uid for anchor in label.anchors}
    return frozenset(uids)

"""Tells whether the token in Vault is the one that the broker says is there."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from broker.cli.doctor.findings import Finding, ok, problem
from broker.cli.doctor.vault import health, unreadable
from broker.cli.doctor.vault_facts import Vault
from broker.cli.doctor.web import Reply
from broker.cli.manifests import Manifest
from broker.cli.times import both, parse_time
from broker.model.client import ROTATE_REQUESTED, ClientId
from broker.model.times import timestamp

IDENTITY = "grant.vault"


@dataclass(frozen=True, slots=True)
class Copy:
    """What the broker says of a copy: whose it is (with the TokenClient's uid), where, and whether its token lives."""

    client: ClientId
    uid: str
    grant: str
    path: str
    version: int
    live: bool


def said(resource: Manifest, grant: str) -> Copy | None:
    """Return what a TokenClient's status says about a grant's copy, or None while there is none."""
    metadata, known = resource["metadata"], resource.get("status", {}).get("grants", ())
    found = next((it["vault"] for it in known if it["name"] == grant and "vault" in it), None)
    if found is None:
        return None
    client = ClientId(metadata["namespace"], metadata["name"])
    return Copy(client, metadata["uid"], grant, str(found["path"]), int(found["version"]), "notAfter" in found)


def judge(copy: Copy, answer: Reply, now: datetime) -> Finding:
    """Return whether the metadata in Vault is what the broker says."""
    if answer.status == HTTPStatus.NOT_FOUND:
        text = f"nothing is at {copy.path}, though the broker wrote version {copy.version}"
        return problem(IDENTITY, text, _rotate(copy, now))
    if answer.status != HTTPStatus.OK:
        return unreadable(IDENTITY, f"the metadata of {copy.path}", answer)
    found = answer.data()
    if (found.get("custom_metadata") or {}).get("client-uid") != copy.uid:
        text = f"what is at {copy.path} is not this client's, and the broker leaves it alone"
        return problem(IDENTITY, text, f"vault kv metadata delete {copy.path}   # if nobody needs it")
    wrong = _wrong(copy, found, now)
    if wrong:
        return problem(IDENTITY, wrong, _rotate(copy, now))
    if not copy.live:
        text = f"version {copy.version} is at {copy.path}, and its token was ended (see client.VaultSynced)"
        return problem(
            IDENTITY, text, f"tokenbroker client show {copy.client}   # a new version comes when this is mended"
        )
    end = both(_expiry(found), now)
    return ok(IDENTITY, f"version {copy.version} for the grant {copy.grant} is at {copy.path} and expires at {end}")


def _wrong(copy: Copy, found: Mapping[str, Any], now: datetime) -> str:
    current = int(found.get("current_version", 0))
    state = (found.get("versions") or {}).get(str(current), {})
    if state.get("destroyed") or state.get("deletion_time"):
        return f"version {current} of {copy.path} was deleted"
    if _expiry(found) <= now:
        return f"the token at {copy.path} expired at {both(_expiry(found), now)}"
    if current != copy.version:
        return f"{copy.path} has version {current}, and the broker knows of {copy.version}: somebody else wrote to it"
    return ""


def _expiry(found: Mapping[str, Any]) -> datetime:
    return parse_time(str(found["custom_metadata"]["expires-at"]))


def _rotate(copy: Copy, now: datetime) -> str:
    """Return the line that has the broker write a new version."""
    return (
        f"kubectl annotate tokenclient {copy.client.name} -n {copy.client.namespace} --overwrite "
        f"{ROTATE_REQUESTED}={timestamp(now)}"
    )


async def check(vault: Vault, resource: Manifest, grant: str, now: datetime) -> Finding:
    """Look for the copy of a grant, which has to have ``vault``."""
    copy = said(resource, grant)
    if copy is None:
        text = f"the grant {grant} wants a token in Vault, and the broker has not written one yet"
        return problem(IDENTITY, text, "tokenbroker doctor --install   # with VAULT_ADDR set: is Vault well?")
    serving = await vault.health()
    if serving.status != HTTPStatus.OK:
        return health(vault.address, serving)
    return judge(copy, await vault.get(await _metadata_path(vault, copy.path)), now)


async def _metadata_path(vault: Vault, path: str) -> str:
    """Return where the metadata of a path is: Vault knows where its mount ends, as ``vault kv`` asks it."""
    answer = await vault.get(f"sys/internal/ui/mounts/{quote(path)}")
    mount = str(answer.data().get("path") or f"{path.partition('/')[0]}/")
    return quote(f"{mount}metadata/{path.removeprefix(mount)}")

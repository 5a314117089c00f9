"""The doctor as people run it, and the faults that it has to find."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from tests.support.cluster import Cluster
from tests.support.command import command_with
from tests.support.openbao import OpenBao


@dataclass(frozen=True, slots=True)
class Told:
    """What the doctor said: each finding's state, text and mending line, by its id."""

    code: int
    stderr: str
    findings: list[dict[str, str]]

    def state(self, identity: str) -> str:
        """Return how a check ended, or nothing where it was not made."""
        return self.one(identity).get("state", "")

    def text(self, identity: str) -> str:
        """Return what a check said, with what mends it."""
        found = self.one(identity)
        return f"{found.get('text')} {found.get('mend')}"

    def one(self, identity: str) -> dict[str, str]:
        """Return the first finding of that id that is a problem, or else the first."""
        found = [it for it in self.findings if it["id"] == identity]
        return next((it for it in found if it["state"] == "problem"), found[0] if found else {})

    @property
    def problems(self) -> set[str]:
        """Return the ids of all problems."""
        return {it["id"] for it in self.findings if it["state"] == "problem"}


async def doctor(
    cluster: Cluster,
    *arguments: str,
    stdin: str = "",
    user: Path | None = None,
    vault: OpenBao | None = None,
    vault_token: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Told:
    """Run ``tokenbroker doctor -o json``, as cluster admin and with Vault's root token unless it is said otherwise.

    Whatever is found to be a problem, a line mends it.
    """
    environment = {**(vault_environment(vault, vault_token) if vault else {}), **(env or {})}
    kubeconfig = user or cluster.kubeconfig
    ended = await command_with(kubeconfig, "doctor", "-o", "json", *arguments, stdin=stdin, env=environment)
    findings = json.loads(ended.stdout)["findings"] if ended.stdout else []
    assert [it["id"] for it in findings if it["state"] == "problem" and not it["mend"]] == []
    return Told(ended.code, ended.stderr, findings)


def vault_environment(vault: OpenBao, token: str | None = None) -> dict[str, str]:
    """Return what Vault's own command line reads; an empty token means none."""
    given = vault.root_token if token is None else token
    return {"VAULT_ADDR": vault.address, "VAULT_CACERT": str(vault.ca_file), "VAULT_TOKEN": given}


def forged(cluster: Cluster, genuine: str, **claims: Any) -> str:
    """Return a token with other claims, signed with the cluster's own key."""
    key = (cluster._folder / "sa.key").read_text()
    header = jwt.get_unverified_header(genuine)
    said = jwt.decode(genuine, options={"verify_signature": False})
    return jwt.encode(said | claims, key, algorithm=header["alg"], headers={"kid": header["kid"]})


async def bound_token(cluster: Cluster, namespace: str, account: str, secret: str) -> str:
    """Make an account and a Secret where they are missing, and return a token that dies with the Secret."""
    core = f"/api/v1/namespaces/{namespace}"
    await cluster.request("POST", f"{core}/serviceaccounts", {"metadata": {"name": account}})
    await cluster.request("POST", f"{core}/secrets", {"metadata": {"name": secret}})
    _, found = await cluster.request("GET", f"{core}/secrets/{secret}")
    bound = {"kind": "Secret", "apiVersion": "v1", "name": secret, "uid": found["metadata"]["uid"]}
    spec = {"expirationSeconds": 3600, "boundObjectRef": bound}
    _, answer = await cluster.request("POST", f"{core}/serviceaccounts/{account}/token", {"spec": spec})
    return str(answer["status"]["token"])

"""Asks Vault, with the token and the CA that its own command line would use."""

import os
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from broker.cli.doctor.settings import Settings
from broker.cli.doctor.vault import VaultFacts
from broker.cli.doctor.web import Reply, get, trust
from broker.model.sensitive import Sensitive


@dataclass(frozen=True, slots=True)
class Vault:
    """Where Vault is, and with what it is asked."""

    address: str
    token: Sensitive | None
    tls: ssl.SSLContext

    @classmethod
    def of_environment(cls) -> Self | None:
        """Return what VAULT_ADDR, VAULT_TOKEN and VAULT_CACERT say, or None without an address. Raises CommandError."""
        address, token = os.environ.get("VAULT_ADDR", "").rstrip("/"), os.environ.get("VAULT_TOKEN", "")
        if not address:
            return None
        return cls(address, Sensitive(token) if token else None, trust(os.environ.get("VAULT_CACERT", "")))

    async def get(self, path: str) -> Reply:
        """Return the answer to a GET below ``/v1/``."""
        return await get(f"{self.address}/v1/{path}", self.tls, self.token)

    async def health(self) -> Reply:
        """Return how it is: 200 where it can serve, itself or by way of another one."""
        return await get(f"{self.address}/v1/sys/health?standbyok=true&perfstandbyok=true", self.tls)


async def gather(vault: Vault, settings: Settings) -> VaultFacts:
    """Return how Vault is set up, as far as the token may read it; what does not serve is not shown the token."""
    health = await vault.health()
    if health.status != HTTPStatus.OK:
        return VaultFacts(vault.address, health)
    return VaultFacts(
        address=vault.address,
        health=health,
        logins=await vault.get("sys/auth"),
        role=await vault.get(f"auth/{settings.auth_mount}/role/{settings.auth_role}"),
        policy=await vault.get("sys/policies/acl/tokenbroker"),
        mounts=await vault.get("sys/mounts"),
    )

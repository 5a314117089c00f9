"""What a scene is set with: brokers' sections, clients, and the load on them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.chaos.ledger import AuditTail, Ledger
from tests.support.chaos.load import Caller, Turns, VaultApp
from tests.support.chaos.proxy import ChaosProxy
from tests.support.lab import Lab

ISSUE, SINGLE, DELIVER = "issue", "issue single", "deliver"
"""What callers ask for: a token of a grant, one that has an anchor of its own, a new version in Vault."""

DELIVERED, ROTATED = "app of delivered", "app of rotated"
"""Apps that read Vault: a copy that callers have replaced, and one that the broker replaces by itself."""

KUBERNETES_SECONDS = 2
"""What the broker gives the API server: with the 10 s that are the default, callers wait longer for the same."""

READER = {"serviceAccount": {"name": "reader"}}
GRANTS: list[dict[str, Any]] = [
    {"name": "together", **READER},
    {"name": "single", "revocation": "Token", **READER},
]
ON_DEMAND, BY_ITSELF = {"ttl": "1h", "renewBefore": "20m"}, {"ttl": "10m", "renewBefore": "565s"}
"""The second is replaced every 31 to 35 s: no copy is visited more often than each 30 s."""

DUE_SECONDS = 35.0
"""At this age at the latest it is due."""

TOPS = {
    "web trial": 2,
    "web grant": 2,
    **{f"{name} {kind}": 1 for name in ("app", "kept") for kind in ("trial", "grant", "vault")},
    **{f"probe {kind}": 1 for kind in ("trial", "grant")},
}


@asynccontextmanager
async def proxy_of(lab: Lab, name: str) -> AsyncIterator[ChaosProxy]:
    """Run a broker's proxy before the API server."""
    folder = lab.folder / f"{name}-proxy"
    folder.mkdir()
    async with ChaosProxy.start(lab.cluster, folder) as proxy:
        yield proxy


def sections(lab: Lab, name: str, scene: str, proxy: ChaosProxy | None) -> dict[str, Any]:
    """Return a broker's sections: its Lease is the scene's, and its way to the API server may be the proxy's."""
    url, ca_file = (proxy.url, proxy.ca_file) if proxy else (lab.cluster.server, lab.cluster.ca_file)
    kubernetes = {
        "server": url,
        "ca_file": str(ca_file),
        "token_file": str(lab.folder / name / "token"),
        "timeout_seconds": KUBERNETES_SECONDS,
    }
    return {"kubernetes": kubernetes, "lease": {"name": scene, "duration_seconds": 5}}


async def registered(lab: Lab, name: str) -> tuple[Tenant, dict[str, Registered]]:
    """Make a namespace, and register the clients there, by their names."""
    tenant = await Tenant.create(lab.cluster, name)
    await tenant.account("reader")
    clients = {
        "web": await tenant.client("web", *GRANTS),
        "app": await tenant.client("app", READER | {"vault": ON_DEMAND}),
        "kept": await tenant.client("kept", READER | {"vault": BY_ITSELF}),
        "probe": await tenant.client("probe", READER),
    }
    return tenant, clients


def load(
    lab: Lab, brokers: Sequence[BrokerProcess], clients: dict[str, Registered], ledger: Ledger, audit: AuditTail
) -> tuple[list[Caller], list[VaultApp]]:
    """Return who calls the brokers, and who reads Vault."""
    turns = Turns(brokers)
    callers = [
        Caller(ISSUE, turns, clients["web"], {"grant": "together"}, 0.3, ledger, audit),
        Caller(SINGLE, turns, clients["web"], {"grant": "single"}, 0.8, ledger, audit),
        Caller(DELIVER, turns, clients["app"], {"deliver": "vault"}, 0.9, ledger, audit),
    ]
    apps = [
        VaultApp(DELIVERED, lab, clients["app"], ledger, audit),
        VaultApp(ROTATED, lab, clients["kept"], ledger, audit),
    ]
    return callers, apps

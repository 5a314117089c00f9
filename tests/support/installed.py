"""deploy/ on a cluster, with every policy in force."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.support.broker import ACCOUNT, ROOT, token_client
from tests.support.cluster import Cluster
from tests.support.processes import until

OVERLAY = ROOT / "tests" / "deploy"
CANARY = "tokenbroker-canary"
GRANTS: list[dict[str, Any]] = [{"serviceAccount": {"name": "x"}, "vault": {}}]


async def install(cluster: Cluster, overlay: Path = OVERLAY, account: tuple[str, str] = ACCOUNT) -> None:
    """Apply an overlay as operators do, and wait until each of its policies refuses what it must.

    ``account`` is the broker's namespace and account there. Nothing says when all API servers know a policy.
    """
    await cluster.kubectl("apply", "-k", str(overlay))
    await cluster.kubectl("wait", "--for=condition=Established", "crd/tokenclients.tokenbroker.dev")
    broker = await cluster.token_for(*account)
    for policy, attempt in _attempts(cluster, account[0], broker).items():
        await until(_refused(attempt, policy), what=f"{policy} is in force")
    await _until_clients_are_guarded(cluster, broker)


async def until_not_in_force(cluster: Cluster, policy: str, account: tuple[str, str] = ACCOUNT) -> None:
    """Wait until the API server lets pass what a policy must refuse: it goes on refusing for a while."""
    attempt = _attempts(cluster, account[0], await cluster.token_for(*account))[policy]

    async def let_pass() -> bool:
        status, _ = await attempt()
        return status == 201

    await until(let_pass, what=f"{policy} is not in force")


def refused_by(policy: str, status: int, answer: dict[str, Any]) -> bool:
    """Tell whether an answer is the refusal of this policy."""
    return status == 422 and f"ValidatingAdmissionPolicy '{policy}'" in answer.get("message", "")


Attempt = Callable[[], Awaitable[tuple[int, dict[str, Any]]]]


def _refused(attempt: Attempt, policy: str) -> Callable[[], Awaitable[bool]]:
    async def refused() -> bool:
        return refused_by(policy, *await attempt())

    return refused


def _attempts(cluster: Cluster, own: str, broker: str) -> dict[str, Attempt]:
    """Return for each policy something that it alone refuses."""
    core = f"/api/v1/namespaces/{own}"
    opaque = {"metadata": {"name": "probe"}}
    anchor = {"type": "tokenbroker.dev/anchor", "metadata": {"name": "tokenbroker-anchor-probe"}}
    clients = "/apis/tokenbroker.dev/v1alpha1/namespaces/kube-system/tokenclients?dryRun=All"
    client = token_client("kube-system", "probe", grants=GRANTS)
    token = f"{core}/serviceaccounts/{CANARY}/token?dryRun=All"
    return {
        "tokenbroker-tokens": lambda: cluster.request("POST", token, {"spec": {"audiences": ["x"]}}, token=broker),
        "tokenbroker-secrets": lambda: cluster.request("POST", f"{core}/secrets?dryRun=All", opaque, token=broker),
        "tokenbroker-registration": lambda: cluster.request("POST", clients, client),
        "tokenbroker-anchors": lambda: cluster.request("POST", f"{core}/secrets?dryRun=All", anchor),
    }


async def _until_clients_are_guarded(cluster: Cluster, broker: str) -> None:
    """Wait for the policy about updates, which needs something that the broker could update."""
    path = "/apis/tokenbroker.dev/v1alpha1/namespaces/default/tokenclients"
    await cluster.request("POST", path, token_client("default", "probe", suspend=True, grants=GRANTS))
    change = {"metadata": {"finalizers": ["example.com/probe"]}}  # which lock 3 leaves to the broker
    attempt = _refused(
        lambda: cluster.request("PATCH", f"{path}/probe?dryRun=All", change, token=broker), "tokenbroker-clients"
    )
    await until(attempt, what="tokenbroker-clients is in force")
    await cluster.request("DELETE", f"{path}/probe")

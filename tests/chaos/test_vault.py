"""Faults of Vault: issuing goes on, and what Vault holds comes back by itself. One broker, and one after the other."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio

from tests.support.broker import Tenant
from tests.support.chaos.invariants import left_of, named_versions
from tests.support.chaos.ledger import NO_ANSWER
from tests.support.chaos.load import VaultApp
from tests.support.chaos.meddling import destroy_all, write_theirs
from tests.support.chaos.report import Outcome
from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import DELIVER, DELIVERED, ISSUE, ON_DEMAND, READER, ROTATED, SINGLE
from tests.support.lab import Lab
from tests.support.openbao import SETUP, configure_for_broker
from tests.support.processes import until

UNAVAILABLE, DENIED = "503 vault_unavailable", "503 vault_denied"
POLICY = "sys/policies/acl/tokenbroker"
FILLED_SECONDS = 60.0
"""docs/rotation.md says that a Vault without its data has a few copies again within a minute."""

VISITED_SECONDS = 15.0
"""Bound for a visit that is due, on a busy machine."""

SAID_SECONDS = 15.0
"""Bound for a status to follow."""

QUIET, SEEN_SECONDS = "copy that nobody asks for", 11.0
"""How long it takes at most, in seconds, until the broker has seen a new namespace in Vault: it looks each 8 to 10."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standing(harmed: Lab) -> AsyncIterator[Scene]:
    """Start a broker for all faults of Vault."""
    async with Scene.start(harmed, "vault-faults") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def quiet(standing: Scene) -> AsyncIterator[VaultApp]:
    """Keep a copy in a namespace where nobody asks for one and none is due: what is lost there comes back by itself."""
    lab = standing.lab
    tenant = await Tenant.create(lab.cluster, "vault-quiet")
    await tenant.account("reader")
    client = await tenant.client("quiet", READER | {"vault": ON_DEMAND})
    app = VaultApp("app of quiet", lab, client, standing.ledger, standing.audit)
    await until(partial(_held, app), what="the copy is there")
    yield app
    await lab.cluster.request("DELETE", f"{tenant.path}/quiet")
    await until(partial(_nothing_left, lab, tenant), what="nothing is left", seconds=FILLED_SECONDS)


def issuing_went_on(outcome: Outcome) -> bool:
    """Tell whether callers who want nothing of Vault noticed nothing."""
    return all(set(outcome.seen[what]) <= {"200"} for what in (ISSUE, SINGLE))


async def test_sealed(scene: Scene) -> None:
    """Deliveries are refused with a reason, and go on when it is unsealed."""
    async with scene.fault("Vault: sealed, unsealed"):
        await scene.lab.vault.seal()
        await scene.sees(DELIVER, UNAVAILABLE, times=3)
        await scene.lab.vault.unseal()
    outcome = await scene.healed()

    assert issuing_went_on(outcome)
    assert outcome.healed[DELIVER] < 10


async def test_restarted_with_its_data(scene: Scene) -> None:
    """Nobody has to log the broker in again."""
    async with scene.fault("Vault: ended, started again with its data"):
        await scene.lab.vault.stop()
        await scene.sees(DELIVER, UNAVAILABLE, times=2)
        await scene.lab.vault.restart()
    outcome = await scene.healed()

    assert issuing_went_on(outcome)
    assert outcome.healed[DELIVER] < 10


async def test_paused(scene: Scene) -> None:
    """Deliveries wait for vault.timeout_seconds, twice where one waits for another; issuing waits for nothing."""
    async with scene.fault("Vault: paused (SIGSTOP)"):
        scene.lab.vault.pause()
        try:
            await scene.sees(DELIVER, UNAVAILABLE, times=2)
        finally:
            scene.lab.vault.resume()
    outcome = await scene.healed()

    assert issuing_went_on(outcome)
    assert outcome.slowest[ISSUE] < 2
    assert outcome.slowest[DELIVER] < 2 * 3 + 2


async def test_token_of_the_broker_revoked(scene: Scene) -> None:
    """It logs in again, at the latest ten seconds after its last login."""
    async with scene.fault("Vault: the broker's token revoked"):
        status, _ = await scene.lab.vault.api("PUT", "sys/leases/revoke-prefix/auth/kubernetes/login", {})
        assert status in {200, 204}
        await scene.sees(DELIVER, "200")
    outcome = await scene.healed()

    assert issuing_went_on(outcome)
    assert set(outcome.seen[DELIVER]) <= {"200", DENIED}
    assert outcome.lasted < 15


async def test_policy_taken_away(scene: Scene) -> None:
    """Who has to mend it is told; when it is back, so are deliveries."""
    async with scene.fault("Vault: policy taken away, given back"):
        await scene.lab.vault.api("PUT", POLICY, {"policy": 'path "nothing" { capabilities = ["read"] }'})
        await scene.sees(DELIVER, DENIED, times=3)
        await scene.lab.vault.api("PUT", POLICY, {"policy": (SETUP / "policy.hcl").read_text()})
    outcome = await scene.healed()

    assert issuing_went_on(outcome)
    assert outcome.healed[DELIVER] < 15


@pytest.mark.parametrize("how", ["deleted", "destroyed"])
async def test_newest_version_gone(scene: Scene, how: str) -> None:
    """A user deletes what readers get: the next visit writes another version, on top."""
    app = _app(scene, ROTATED)
    async with scene.fault(f"Vault: newest version {how} by a user"):
        newest = await app.token()
        assert newest is not None
        app.spoiled.add(newest[0])
        if how == "deleted":
            status, _ = await scene.lab.vault.api("DELETE", f"secret/data/{app.path}")
        else:
            status, _ = await scene.lab.vault.api("PUT", f"secret/destroy/{app.path}", {"versions": [newest[0]]})
        assert status in {200, 204}
        await _visited(scene)
        await scene.sees(ROTATED, "200")
    outcome = await scene.healed()

    assert issuing_went_on(outcome)
    assert outcome.lasted < VISITED_SECONDS


async def test_written_by_somebody_else(scene: Scene) -> None:
    """Their version stays below that of the broker, and the one before goes on working."""
    app = _app(scene, ROTATED)
    async with scene.fault("Vault: somebody else wrote the path"):
        theirs = await write_theirs(scene.lab.vault, app)
        await _visited(scene)
        await scene.sees(ROTATED, "200")
        _, kept = await scene.lab.vault.api("GET", f"secret/data/{app.path}?version={theirs}")
    outcome = await scene.healed()

    assert issuing_went_on(outcome)
    assert outcome.lasted < VISITED_SECONDS
    assert kept["data"]["data"] == {"token": "theirs"}


async def test_all_versions_destroyed(scene: Scene) -> None:
    """What versions there were is known, and none can be read: the next visit, or delivery, writes one on top."""
    async with scene.fault("Vault: all versions destroyed by a user"):
        for app in scene.apps:
            await destroy_all(scene.lab.vault, app)
        await _written_at_the_next_visit(scene)
    outcome = await scene.healed()

    assert issuing_went_on(outcome)
    assert set(outcome.seen[DELIVER]) == {"200"}
    assert outcome.lasted < VISITED_SECONDS
    await _synced(scene, "kept", "True", "Synced")


async def test_metadata_deleted(scene: Scene) -> None:
    """All that Vault knew of a path goes, its owner, too: the next visit, or delivery, writes a version 1."""
    async with scene.fault("Vault: metadata of a path deleted by a user, with all versions"):
        for app in scene.apps:
            app.lose()
            assert (await scene.lab.vault.api("DELETE", f"secret/metadata/{app.path}"))[0] == 204
        await _forget_versions(scene)
        await _written_at_the_next_visit(scene)
    outcome = await scene.healed()

    assert issuing_went_on(outcome)
    assert outcome.lasted < VISITED_SECONDS
    assert not any(app.anew for app in scene.apps)
    await _synced(scene, "kept", "True", "Synced")


async def test_engine_disabled_and_enabled_again(scene: Scene, quiet: VaultApp) -> None:
    """Without an engine deliveries are refused, and who has to mend it is told; an empty one is filled by itself."""
    await asyncio.sleep(SEEN_SECONDS)  # nothing tells when
    async with scene.fault("Vault: engine disabled, and enabled again"):
        for app in scene.apps:
            app.lose()
        assert (await scene.lab.vault.api("DELETE", "sys/mounts/secret"))[0] == 204
        await _forget_versions(scene)
        await scene.sees(DELIVER, DENIED, times=2)
        await _synced(scene, "app", "False", "VaultDenied")
        body = {"type": "kv", "options": {"version": "2"}}
        assert (await scene.lab.vault.api("POST", "sys/mounts/secret", body))[0] == 204
    await _filled(scene, quiet)
    outcome = await scene.healed()

    assert issuing_went_on(outcome)
    assert outcome.healed[DELIVER] < FILLED_SECONDS
    assert outcome.healed[QUIET] < FILLED_SECONDS
    assert not any(app.anew for app in scene.apps)
    for client in ("app", "kept"):
        await _synced(scene, client, "True", "Synced")


async def test_restarted_without_its_data(scene: Scene, quiet: VaultApp) -> None:
    """Configured anew, it is filled again by itself within a minute, where nobody asks for anything.

    What only its labels knew, the anchors of the last versions, is used again or goes with the TokenClients.
    """
    await asyncio.sleep(SEEN_SECONDS)
    async with scene.fault("Vault: started again without its data, then configured"):
        scene.forgotten |= await named_versions(scene.lab, scene.apps)
        for app in scene.apps:
            app.lose()
        await scene.lab.vault.restart_empty()
        await scene.sees(DELIVER, DENIED)
        await configure_for_broker(scene.lab.vault, scene.lab.cluster)
    await _filled(scene, quiet)
    outcome = await scene.healed()

    assert issuing_went_on(outcome)
    assert outcome.healed[DELIVER] < FILLED_SECONDS
    assert outcome.healed[QUIET] < FILLED_SECONDS


async def _visited(scene: Scene) -> None:
    """Have the broker look at the copy now, not at some time within twenty minutes: its TokenClient has changed."""
    await scene.tenant.patch("kept", {"owner": uuid.uuid4().hex})


async def _written_at_the_next_visit(scene: Scene) -> None:
    """See that apps find nothing and that no status says so before somebody looks; then that all is there again."""
    await scene.sees(ROTATED, NO_ANSWER)
    await _synced(scene, "kept", "True", "Synced")
    await _visited(scene)
    for what in (DELIVER, DELIVERED, ROTATED):
        await scene.sees(what, "200")


def _app(scene: Scene, what: str) -> VaultApp:
    return next(app for app in scene.apps if app.what == what)


async def _filled(scene: Scene, app: VaultApp) -> None:
    """Wait until a copy is there again that nobody has asked for, and note how long that took."""
    await until(partial(_held, app), what="the copy is there again", seconds=FILLED_SECONDS)
    scene.outcome.healed[QUIET] = scene.now - scene.ended


async def _held(app: VaultApp) -> bool:
    return await app.token() is not None


async def _nothing_left(lab: Lab, tenant: Tenant) -> bool:
    return not await left_of(lab, tenant)


async def _forget_versions(scene: Scene) -> None:
    """Take note that nobody knows any more of which versions there are anchors."""
    labels = [(it["metadata"]["labels"], it["metadata"]["uid"]) for it in await scene.anchors()]
    scene.forgotten |= {uid for labels, uid in labels if labels["tokenbroker.dev/anchor"] == "version"}


async def _synced(scene: Scene, client: str, status: str, reason: str) -> None:
    """Wait until a TokenClient says so of its copy."""

    async def said() -> bool:
        condition = await scene.tenant.condition(client, "VaultSynced")
        return (condition["status"], condition["reason"]) == (status, reason)

    await until(said, what=f"{client} says {status}, {reason}", seconds=SAID_SECONDS)

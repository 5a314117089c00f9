"""The laboratory itself: real servers that refuse what they should, and vanish with their parent."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.kubectl import KubectlError
from tests.support.lab import Lab
from tests.support.marks import own_cluster
from tests.support.openbao import OpenBao
from tests.support.processes import ProcessGroup, ProgramError, until
from tests.support.rest import JsonObject

ROOT = Path(__file__).resolve().parents[2]
BROKER = """
apiVersion: v1
kind: Namespace
metadata: {name: tokenbroker}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: tokenbroker, namespace: tokenbroker}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: somebody, namespace: tokenbroker}
"""
PARENT = """
import asyncio, json
from tests.support.lab import Lab

async def main():
    async with Lab.start(own=True) as lab:
        lab.vault.pause()
        print(json.dumps({"group": lab.processes.id, "folder": str(lab.folder)}), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def vault_token(lab: Lab) -> str:
    """Log in to Vault as the broker's account and return Vault's token."""
    await lab.cluster.apply(BROKER)
    status, body = await login(lab, await lab.cluster.token_for("tokenbroker", "tokenbroker", ["vault"]))
    assert status == 200, body
    return str(body["auth"]["client_token"])


@pytest_asyncio.fixture(loop_scope="session")
async def openbao() -> AsyncIterator[OpenBao]:
    """Start a Vault of the test's own, because it is sealed and stopped."""
    async with OpenBao.start() as server:
        yield server


async def login(lab: Lab, token: str) -> tuple[int, JsonObject]:
    """Log in to Vault as the broker with a service-account token."""
    return await lab.vault.api("POST", "auth/kubernetes/login", {"role": "tokenbroker", "jwt": token}, token="")


def start_parent() -> tuple[subprocess.Popen[str], int, Path]:
    """Start a process with a lab of its own; return it, the lab's process group and its folder."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    started = json.loads(parent.stdout.readline())
    return parent, started["group"], Path(started["folder"])


def living(group: int) -> list[str]:
    """Return the processes of a group, without the dead that nobody has collected yet."""
    listing = subprocess.run(["ps", "-A", "-o", "pgid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(maxsplit=2) for line in listing.stdout.splitlines())
    return [row[-1] for row in rows if row[0] == str(group) and not row[1].startswith("Z")]


async def test_nothing_is_left_when_the_parent_is_killed() -> None:
    """A parent that dies by SIGKILL takes every server with it, frozen ones too, and their folder."""
    parent, group, folder = start_parent()
    assert len(living(group)) >= 2

    parent.kill()
    parent.communicate()

    async def gone() -> bool:
        return not living(group) and not folder.exists()

    await until(gone, what="the servers and their folder are gone", seconds=10)


async def test_a_program_that_ends_too_early_is_reported_with_its_log() -> None:
    """Waiting for a program that died fails at once and says why it died."""
    async with ProcessGroup.start() as group:
        program = group.program("doomed", ["sh", "-c", "echo no such luck; exit 3"])
        program.start()

        async def never() -> bool:
            return False

        with pytest.raises(ProgramError, match="no such luck"):
            await until(never, what="luck", seconds=10, programs=[program])


async def test_the_cluster_refuses_strangers(lab: Lab) -> None:
    """Without a token the API server answers 403, with a bad one 401."""
    anonymous, _ = await lab.cluster.request("GET", "/api/v1/namespaces", token="")
    invented, _ = await lab.cluster.request("GET", "/api/v1/namespaces", token="invented")

    assert (anonymous, invented) == (403, 401)


async def test_a_kubeconfig_for_a_token_is_that_account(lab: Lab) -> None:
    """A kubeconfig of ours makes kubectl the account whose token it holds, with its rights only."""
    kubeconfig = lab.cluster.kubeconfig_for(await lab.cluster.token_for("default", "default"))

    who = await lab.cluster.kubectl("auth", "whoami", "--output=json", f"--kubeconfig={kubeconfig}")
    assert json.loads(who)["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"
    with pytest.raises(KubectlError, match="Forbidden"):
        await lab.cluster.kubectl("get", "secrets", f"--kubeconfig={kubeconfig}")


@own_cluster
async def test_a_restarted_api_server_keeps_address_and_data(lab: Lab) -> None:
    """Killing the API server loses nothing: it comes back where it was."""
    await lab.cluster.kubectl("create", "configmap", "kept")

    await lab.cluster.api_server.kill()
    lab.cluster.api_server.start()
    await lab.cluster.ready()

    assert (await lab.cluster.request("GET", "/api/v1/namespaces/default/configmaps/kept"))[0] == 200


async def test_a_token_for_vault_is_none_for_the_api_server(lab: Lab, vault_token: str) -> None:
    """What the broker shows to Vault is useless to whoever steals it there."""
    assert vault_token
    token = await lab.cluster.token_for("tokenbroker", "tokenbroker", ["vault"])

    assert (await lab.cluster.request("GET", "/api", token=token))[0] == 401


async def test_vault_refuses_the_accounts_token_for_the_api_server(lab: Lab, vault_token: str) -> None:
    """The broker's ordinary token does not open Vault: its audience is another."""
    assert vault_token
    status, body = await login(lab, await lab.cluster.token_for("tokenbroker", "tokenbroker"))

    assert status in {400, 403}, body


async def test_vault_refuses_other_accounts(lab: Lab, vault_token: str) -> None:
    """The right audience is not enough: the role is for one account."""
    assert vault_token
    status, body = await login(lab, await lab.cluster.token_for("tokenbroker", "somebody", ["vault"]))

    assert status == 403, body


@pytest.mark.parametrize(
    ("call", "body", "status"),
    [
        pytest.param("POST secret/data/tokenbroker/a/b", {"data": {"token": "x"}}, 200, id="write"),
        pytest.param("POST secret/data/tokenbroker/a/b", {"options": {"cas": 1}, "data": {"t": "y"}}, 200, id="cas"),
        pytest.param("GET secret/data/tokenbroker/a/b", None, 403, id="no-read"),
        pytest.param("DELETE secret/data/tokenbroker/a/b", None, 403, id="no-delete-of-data"),
        pytest.param("GET secret/metadata/tokenbroker/a/b", None, 200, id="metadata"),
        pytest.param(
            "POST secret/metadata/tokenbroker/a/b", {"custom_metadata": {"k": "v"}}, 204, id="custom-metadata"
        ),
        pytest.param("LIST secret/metadata/tokenbroker/a", None, 200, id="list"),
        pytest.param("LIST secret/metadata/tokenbroker", None, 200, id="list-own-prefix"),
        pytest.param("DELETE secret/metadata/tokenbroker/a/b", None, 204, id="remove"),
        pytest.param("POST auth/token/renew-self", {}, 200, id="renew"),
        pytest.param("GET auth/token/lookup-self", None, 403, id="no-lookup"),
        pytest.param("LIST secret/metadata", None, 403, id="no-list-elsewhere"),
        pytest.param("POST secret/data/other", {"data": {"a": "b"}}, 403, id="no-write-elsewhere"),
        pytest.param("POST secret/data/tokenbroker-other", {"data": {"a": "b"}}, 403, id="no-namesake"),
        pytest.param("GET secret/metadata/other", None, 403, id="no-metadata-elsewhere"),
        pytest.param("POST secret/destroy/tokenbroker/a/b", {"versions": [1]}, 403, id="no-destroy"),
        pytest.param("GET secret/config", None, 403, id="no-config"),
        pytest.param("GET sys/policies/acl/tokenbroker", None, 403, id="no-policy"),
        pytest.param("POST auth/token/create", {}, 403, id="no-child-tokens"),
        pytest.param("POST sys/wrapping/wrap", {"a": "b"}, 403, id="no-default-policy"),
    ],
)
async def test_the_brokers_policy(lab: Lab, vault_token: str, call: str, body: JsonObject | None, status: int) -> None:
    """The broker writes tokens and keeps their metadata; it reads no token and touches nothing else."""
    method, path = call.split()

    answered, answer = await lab.vault.api(method, path, body, token=vault_token)

    assert answered == status, answer


async def test_vault_keeps_its_data_over_seal_and_restart(openbao: OpenBao) -> None:
    """A sealed server answers 503; unsealed or restarted, it still knows what it was told."""
    await openbao.api("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
    await openbao.api("POST", "secret/data/a", {"data": {"k": "v"}})

    await openbao.seal()
    sealed, _ = await openbao.api("GET", "secret/data/a")
    await openbao.unseal()
    await openbao.restart()
    status, body = await openbao.api("GET", "secret/data/a")

    assert (sealed, status, body["data"]["data"]) == (503, 200, {"k": "v"})

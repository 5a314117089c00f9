"""``tokenbroker doctor --install`` about Vault, certificates and clocks: each fault is one of a real server."""

import datetime as dt
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from tests.support.altering_proxy import altered, clock
from tests.support.certificates import Authority
from tests.support.doctor import Told, doctor
from tests.support.openbao import OpenBao, configure_for_broker
from tests.support.processes import free_port, until
from tests.support.world import CONFIG_MAP, World

ENDED, SOON = dt.timedelta(minutes=-1), dt.timedelta(days=6)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world() -> AsyncIterator[World]:
    """Start all of it."""
    async with World.start() as running:
        yield running


async def test_a_vault_that_is_sealed(world: World) -> None:
    """Nothing else is asked of it then."""
    await world.lab.vault.seal()
    try:
        told = await world.ask()
    finally:
        await world.lab.vault.unseal()

    assert told.problems == {"vault.reachable"}
    assert "is sealed vault operator unseal" in told.text("vault.reachable")
    assert told.state("vault.role") == ""


async def test_a_vault_that_is_not_initialised(world: World) -> None:
    """A server that was started, and no more."""
    async with OpenBao.start(initialised=False) as fresh:
        told = await doctor(world.cluster, "--install", vault=fresh)

    assert "vault.reachable" in told.problems
    assert "is not initialised vault operator init" in told.text("vault.reachable")
    assert told.state("vault.login") == ""


async def test_a_vault_that_is_away(world: World) -> None:
    """Nobody listens where it was."""
    await world.lab.vault.stop()
    try:
        away = await world.ask()
    finally:
        await world.lab.vault.restart()

    assert away.problems == {"vault.reachable"}
    assert "cannot be reached" in away.text("vault.reachable")


async def test_a_vault_that_is_unknown(world: World) -> None:
    """Its certificate is not of the CA that it should be of."""
    told = await world.ask(env={"VAULT_CACERT": str(world.ca_file)})

    assert told.problems == {"vault.reachable"}
    assert "certificate verify failed" in told.text("vault.reachable")
    assert "VAULT_CACERT" in told.text("vault.reachable")


async def test_what_is_no_vault(world: World, tmp_path: Path) -> None:
    """The broker itself answers there, and knows no such path; it is not shown Vault's token."""
    shown: list[str] = []

    def note(request: web.Request, _response: web.Response) -> None:
        shown.append(request.headers.get("X-Vault-Token", "no token"))

    authority = _authority(tmp_path)
    async with altered(world.broker.url, world.ca_file, authority, note) as url:
        told = await world.ask(env={"VAULT_ADDR": url, "VAULT_CACERT": str(authority.file)})

    assert told.problems == {"vault.reachable"}
    assert "answers 404" in told.text("vault.reachable")
    assert told.state("vault.role") == ""
    assert shown == ["no token"]


ROLE, POLICY = "auth/kubernetes/role/tokenbroker", "sys/policies/acl/tokenbroker"
READS = {"policy": 'path "secret/*" { capabilities = ["read"] }'}


@pytest.mark.parametrize(
    ("harms", "told_by"),
    [
        (
            [("POST", ROLE, {"bound_service_account_namespaces": "*", "audience": ""}), ("PUT", POLICY, READS)],
            {
                "vault.role": ["bound_service_account_namespaces is ['*'] and not ['tokenbroker']", "audience is "],
                "vault.policy": ["not that of this release", "vault policy write tokenbroker"],
            },
        ),
        (
            [("DELETE", ROLE, None), ("DELETE", POLICY, None), ("DELETE", "sys/mounts/secret", None)],
            {
                "vault.role": ["there is no role", "deploy/vault/setup.sh"],
                "vault.policy": ["there is no policy", "deploy/vault/setup.sh"],
                "vault.mount": ["no secrets engine", "vault secrets enable -path=secret"],
            },
        ),
        ([("DELETE", "sys/auth/kubernetes", None)], {"vault.login": ["no kubernetes login", "deploy/vault/setup.sh"]}),
    ],
)
async def test_a_vault_that_is_set_up_wrong(
    world: World, harms: list[tuple[str, str, dict[str, Any] | None]], told_by: dict[str, list[str]]
) -> None:
    """Role, policy, login and engine, each with the line that sets it up; setup.sh then mends it."""
    _, role = await world.lab.vault.api("GET", ROLE)
    for method, path, change in harms:
        body = role["data"] | change if change and path == ROLE else change
        status, answer = await world.lab.vault.api(method, path, body)
        assert status in {200, 204}, answer
    try:
        told = await world.ask()
    finally:
        await configure_for_broker(world.lab.vault, world.cluster)

    for identity, words in told_by.items():
        assert [word for word in words if word not in told.text(identity)] == []
    assert (await world.ask()).problems == set()


async def test_an_engine_of_version_1(world: World) -> None:
    """The broker's configuration names the mount."""
    await world.lab.vault.api("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})

    def old(config_map: dict[str, Any]) -> None:
        config = yaml.safe_load(config_map["data"]["config.yaml"]) | {"vault": {"mount": "old"}}
        config_map["data"]["config.yaml"] = yaml.safe_dump(config)

    async with world.changed(CONFIG_MAP, old):
        told = await world.ask()

    assert "no KV of version 2" in told.text("vault.mount")
    assert "vault.policy" in told.problems, "the policy is for another mount"


def _configured(**data: str) -> Any:
    return lambda config_map: config_map["data"].update(data)


async def test_a_ca_that_is_not_the_api_servers(world: World) -> None:
    """What clients are told to trust does not vouch for the API server."""
    async with world.changed(CONFIG_MAP, _configured(**{"cluster-ca.crt": world.ca_file.read_text()})):
        told = await world.ask()

    assert told.problems == {"certificate.api-server"}
    assert "cluster.ca_file" in told.text("certificate.api-server")


@pytest.mark.parametrize("config", ["no: [yaml", "- a list", "cluster: 1"])
async def test_a_configuration_that_cannot_be_read(world: World, config: str) -> None:
    """What it says is then not known."""
    async with world.changed(CONFIG_MAP, _configured(**{"config.yaml": config})):
        told = await world.ask()

    assert told.problems == set()
    assert told.state("certificate.cluster-ca") == "cannot tell"
    assert told.state("certificate.broker") == "cannot tell"


async def test_a_ca_file_that_holds_none(world: World) -> None:
    """It is told once."""
    async with world.changed(CONFIG_MAP, _configured(**{"cluster-ca.crt": "nothing"})):
        told = await world.ask()

    assert told.problems == {"certificate.cluster-ca"}


def _authority(folder: Path, lifetime: dt.timedelta = dt.timedelta(days=30)) -> Authority:
    return Authority.create(folder, "another-ca", lifetime)


@pytest.mark.parametrize(("lifetime", "told_by"), [(ENDED, "expired at"), (SOON, "expires soon, at")])
async def test_a_ca_that_ends(world: World, tmp_path: Path, lifetime: dt.timedelta, told_by: str) -> None:
    """A week ahead it is a problem already, for clients need time to be told of another one."""
    ca = _authority(tmp_path, lifetime).file.read_text()
    async with world.changed(CONFIG_MAP, _configured(**{"cluster-ca.crt": ca})):
        told = await world.ask()

    assert {"certificate.cluster-ca", "certificate.api-server"} == told.problems, "it is not the API server's either"
    assert told_by in told.text("certificate.cluster-ca")
    assert "put the API server's current CA into cluster.ca_file" in told.text("certificate.cluster-ca")


def _connecting(url: str, ca: str) -> Callable[[dict[str, Any]], None]:
    """Have clients told to connect to this URL, and to trust this CA."""

    def change(config_map: dict[str, Any]) -> None:
        config = yaml.safe_load(config_map["data"]["config.yaml"])
        config["cluster"]["server"] = url
        config_map["data"] |= {"config.yaml": yaml.safe_dump(config), "cluster-ca.crt": ca}

    return change


async def test_an_api_server_that_cannot_be_reached_where_clients_are_sent(world: World) -> None:
    """From here, that is: clients may stand elsewhere."""
    nowhere = f"https://127.0.0.1:{free_port()}"
    async with world.changed(CONFIG_MAP, _connecting(nowhere, world.cluster.ca_file.read_text())):
        told = await world.ask()

    assert told.problems == set()
    assert told.state("certificate.api-server") == "cannot tell"
    assert "cannot be reached from here" in told.text("certificate.api-server")


@pytest.mark.parametrize(("lifetime", "told_by"), [(ENDED, "certificate has expired"), (SOON, "expires soon, at")])
async def test_an_api_servers_certificate_that_ends(
    world: World, tmp_path: Path, lifetime: dt.timedelta, told_by: str
) -> None:
    """What clients are told to connect to shows it."""
    authority = _authority(tmp_path)
    async with (
        altered(world.cluster.server, world.cluster.ca_file, authority, lifetime=lifetime) as url,
        world.changed(CONFIG_MAP, _connecting(url, authority.file.read_text())),
    ):
        told = await world.ask()

    assert told.problems == {"certificate.api-server"}
    assert told_by in told.text("certificate.api-server")
    assert "or mend cluster.server" in told.text("certificate.api-server")


@pytest.mark.parametrize(("lifetime", "told_by"), [(ENDED, "certificate has expired"), (SOON, "expires soon, at")])
async def test_a_certificate_of_the_broker_that_ends(world: World, lifetime: dt.timedelta, told_by: str) -> None:
    """The broker shows what its files hold, as they are renewed; another one mends it."""
    world.authority.server("tokenbroker", lifetime)
    try:
        told = await _until_state(world, "problem")
    finally:
        world.authority.server("tokenbroker")
    mended = await _until_state(world, "ok")

    assert told.problems == {"certificate.broker"}
    assert told_by in told.text("certificate.broker")
    assert "kubectl create secret tls tokenbroker-tls -n tokenbroker" in told.text("certificate.broker")
    assert mended.problems == set()


async def _until_state(world: World, state: str) -> Told:
    """Ask until the broker has taken notice of its new certificate."""
    told: list[Told] = []

    async def seen() -> bool:
        told.append(await world.ask())
        return told[-1].state("certificate.broker") == state

    await until(seen, what=f"the broker's certificate is {state}")
    return told[-1]


@pytest.mark.parametrize(("seconds", "told_by"), [(1815, "30m behind"), (-1815, "30m ahead of")])
async def test_clocks_that_are_wrong(world: World, tmp_path: Path, seconds: int, told_by: str) -> None:
    """Those of Vault and of the broker, by what a proxy before each makes of their Dates."""
    vault, broker = world.lab.vault, world.broker
    authority = _authority(tmp_path)
    async with (
        altered(vault.address, vault.ca_file, authority, clock(seconds)) as vault_url,
        altered(broker.url, world.ca_file, world.authority, clock(seconds)) as broker_url,
    ):
        env = {"VAULT_ADDR": vault_url, "VAULT_CACERT": str(authority.file)}
        told = await world.ask("--url", broker_url, env=env)

    assert told.problems == {"clock.vault", "clock.broker"}
    assert f"{told_by} that of the Vault timedatectl" in told.text("clock.vault")
    assert f"{told_by} that of the broker timedatectl" in told.text("clock.broker")


async def test_a_url_that_is_not_the_certificates(world: World) -> None:
    """The name is compared; what is no https, and what does not listen, cannot be told."""
    named = await world.ask("--url", world.broker.url.replace("127.0.0.1", "127.1"))
    plain = await world.ask("--url", world.broker.url.replace("https", "http"))
    away = await world.ask("--url", f"https://127.0.0.1:{free_port()}")

    assert named.problems == {"certificate.broker"}
    assert "127.1" in named.text("certificate.broker")
    assert plain.state("certificate.broker") == "cannot tell"
    assert away.state("certificate.broker") == "cannot tell"
    assert away.state("clock.broker") == "cannot tell"


async def test_a_wrong_ca_file_is_refused(world: World) -> None:
    """Before anything is asked."""
    assert (await doctor(world.cluster, "--ca-file", "/nowhere")).code == 2
    assert (await doctor(world.cluster, "--can", "get pods")).code == 2

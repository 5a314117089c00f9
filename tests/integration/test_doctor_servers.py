"""``tokenbroker doctor --install`` about Vault, certificates and clocks: each fault is one of a real server."""

import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import yaml
from cryptography import x509

from broker.cli.doctor import command as doctor_command
from broker.cli.doctor.certificates import ending
from tests.support.doctor import doctor
from tests.support.openbao import configure_for_broker
from tests.support.processes import free_port
from tests.support.world import CONFIG_MAP, World


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


async def test_a_vault_that_is_away_or_unknown(world: World) -> None:
    """Away, or with a certificate that the CA does not vouch for."""
    await world.lab.vault.stop()
    try:
        away = await world.ask()
    finally:
        await world.lab.vault.restart()

    assert away.problems == {"vault.reachable"}
    assert "cannot be reached" in away.text("vault.reachable")


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


async def test_certificates_that_have_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from a time after their end: the clocks differ then, too."""
    end = x509.load_pem_x509_certificate(world.ca_file.read_bytes()).not_valid_after_utc

    class Later(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            del tz
            return end + dt.timedelta(days=1)

    monkeypatch.setattr(doctor_command, "datetime", Later)
    told = await world.ask()

    assert {"certificate.cluster-ca", "certificate.api-server", "certificate.broker"} <= told.problems
    assert {"clock.vault", "clock.broker", "clock.api-server"} <= told.problems
    assert "kubectl create secret tls tokenbroker-tls -n tokenbroker" in told.text("certificate.broker")


def test_certificates_that_end_soon() -> None:
    """A week ahead it is a problem already."""
    now = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)
    states = [ending("x", "it", now + dt.timedelta(days=days), now, "mend").state for days in (6, 7)]

    assert states == ["problem", "ok"]


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

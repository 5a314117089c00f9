"""``tokenbroker doctor`` between clocks that differ, and keys that are broken: a proxy alters what real servers say."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.altering_proxy import Alter, altered, clock, says, without_clock
from tests.support.broker import Tenant
from tests.support.certificates import Authority
from tests.support.cluster import Cluster
from tests.support.doctor import Told, bound_token, doctor, forged
from tests.support.kubectl import write_kubeconfig
from tests.support.marks import own_cluster

KEYS = "/openid/v1/jwks"
WRONG = [(1815, "30m behind that of the"), (-1815, "30m ahead of that of the")]


@asynccontextmanager
async def _behind(cluster: Cluster, folder: Path, alter: Alter) -> AsyncIterator[Path]:
    """Put a proxy before the API server, and yield the kubeconfig of who is behind it."""
    authority = Authority.create(folder, "proxy-ca")
    async with altered(cluster.server, cluster.ca_file, authority, alter) as url:
        yield write_kubeconfig(
            folder / "kubeconfig.yaml", server=url, ca_file=authority.file, token=cluster.admin_token
        )


async def _ask(tenant: Tenant, folder: Path, alter: Alter, **claims: Any) -> Told:
    """Ask about a token, with other claims, behind a proxy."""
    token = await bound_token(tenant.cluster, tenant.namespace, "web", "anchor")
    presented = forged(tenant.cluster, token, **claims) if claims else token
    async with _behind(tenant.cluster, folder, alter) as kubeconfig:
        return await doctor(tenant.cluster, "--token-file", "-", stdin=presented, user=kubeconfig)


@own_cluster
@pytest.mark.parametrize(("seconds", "told_by"), WRONG)
async def test_an_api_server_whose_clock_is_wrong(tenant: Tenant, tmp_path: Path, seconds: int, told_by: str) -> None:
    """How wrong, and which way; the token, which is good for an hour, is no problem."""
    told = await _ask(tenant, tmp_path, clock(seconds), exp=int(time.time()) + 3600, nbf=int(time.time()) - 3600)

    assert told.problems == {"clock.api-server"}
    assert f"{told_by} API server timedatectl" in told.text("clock.api-server")


async def test_a_token_is_judged_by_the_api_servers_clock(tenant: Tenant, tmp_path: Path) -> None:
    """By which it has ended, though this machine's says that it has not."""
    told = await _ask(tenant, tmp_path, clock(7200))

    assert {"clock.api-server", "token.time"} <= told.problems
    assert "by the clock of the API server" in told.text("token.time")


@own_cluster
async def test_an_api_server_that_does_not_say_the_time(tenant: Tenant, tmp_path: Path) -> None:
    """Then this machine's clock is the only one that there is, and it is said so."""
    told = await _ask(tenant, tmp_path, without_clock, exp=int(time.time()) - 60)

    assert told.state("clock.api-server") == "cannot tell"
    assert "by the clock of this machine" in told.text("token.time")


@pytest.mark.parametrize("keys", [{}, {"keys": "none"}, {"keys": ["none"]}, {"keys": [{}]}])
async def test_keys_that_are_broken(tenant: Tenant, tmp_path: Path, keys: dict[str, Any]) -> None:
    """They are no proof against a token that the API server accepts."""
    told = await _ask(tenant, tmp_path, says(KEYS, keys))

    assert told.state("token.accepted") == "ok"
    assert told.state("token.signature") == ("problem" if keys == {"keys": [{}]} else "cannot tell")


async def test_a_key_that_says_nothing(tenant: Tenant, tmp_path: Path) -> None:
    """It has the right name and no more."""
    _, keys = await tenant.cluster.request("GET", KEYS)
    hollow = {"keys": [{"kid": it["kid"]} for it in keys["keys"]]}
    told = await _ask(tenant, tmp_path, says(KEYS, hollow))

    assert told.problems == set()
    assert told.state("token.signature") == "cannot tell"

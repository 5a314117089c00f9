"""The registered clients: the same promises from a watch on a real API server and from a directory of files."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from broker.directory import registry as looking
from broker.errors import BrokerError, Reason
from broker.kube import reflector as watching
from broker.model.client import Client, ClientId
from tests.support.bad_specs import GOOD, GRANT, PROOFS
from tests.support.broker import token_client
from tests.support.processes import until
from tests.support.registries import LONGEST_OWNER, ClusterSource, DirectorySource, Followed, Source, Told, text_of

CLUSTER = "cluster"

GRANTS: dict[str, dict[str, Any]] = {
    "as little as there can be": GRANT,
    "a name": GRANT | {"name": "n"},
    "an empty ttl": GRANT | {"ttl": {}},
    "a default": GRANT | {"ttl": {"default": "20m"}},
    "a maximum": GRANT | {"ttl": {"max": "24h"}},
    "audiences": GRANT | {"audiences": ["https://a.example", "b"]},
    "no audiences": GRANT | {"audiences": []},
    "an empty vault": GRANT | {"vault": {}},
    "a vault": GRANT | {"vault": {"ttl": "1h"}},
    "a vault with all that there is": GRANT | {"vault": {"ttl": "1h", "renewBefore": "10m"}},
}
TEXTS = {
    "a time without quotes": "notAfter: 2027-06-30T00:00:00+02:00",
    "yes and no": "suspend: yes",
    "a text over lines": "owner: >-\n  team\n  observability",
    "a quoted word": "owner: 'true'",
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api_server() -> AsyncIterator[ClusterSource]:
    """Run an API server that knows TokenClients."""
    async with ClusterSource.start() as source:
        yield source


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "POLL_SECONDS", 0.02)


@pytest.fixture(params=[CLUSTER, "directory"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    """Return each source in turn."""
    if request.param == "directory":
        return DirectorySource(tmp_path / "clients")
    api_server: ClusterSource = request.getfixturevalue("api_server")
    return api_server


@pytest_asyncio.fixture(loop_scope="session")
async def namespace(source: Source, request: pytest.FixtureRequest) -> str:
    """Return a namespace of the test's own."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))[:63].strip("-")
    if isinstance(source, ClusterSource):
        await source.cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name


@pytest_asyncio.fixture(loop_scope="session")
async def followed(source: Source, namespace: str) -> AsyncIterator[Followed]:
    """Follow the source while the test lasts."""
    async with Followed.start(source, namespace) as running:
        running.told.changed.clear()  # what other tests left in the cluster
        yield running


async def test_client_that_comes_is_known(followed: Followed) -> None:
    """Whole, and told of once."""
    assert followed.client("web") is None
    await followed.put("web", GOOD)
    await followed.changes("web")

    client = followed.client("web")
    assert client is not None
    assert (client.id, client.suspended, len(client.uid)) == (followed.id("web"), False, 36)


async def test_client_that_changes_is_the_same_with_another_generation(followed: Followed) -> None:
    """By the UID a recreated one would be told apart, by the generation what was prepared for the old words."""
    await followed.put("web", GOOD)
    await followed.changes("web")
    before = followed.client("web")
    await followed.put("web", GOOD | {"owner": "team"})
    await followed.changes("web")

    after = followed.client("web")
    assert before is not None
    assert after is not None
    assert (before.owner, after.owner) == ("", "team")
    assert before.uid == after.uid
    assert before.generation != after.generation


async def test_client_that_goes_is_forgotten(followed: Followed) -> None:
    """Nothing of it is served any more, and its neighbour notices nothing."""
    await followed.put("web", GOOD)
    await followed.changes("web")
    await followed.put("app", GOOD)
    await followed.changes("app")
    await followed.source.remove(followed.id("web"))
    await followed.changes("web")

    assert followed.registry.get(followed.id("web")) is None
    assert followed.client("app") is not None


async def test_client_that_becomes_invalid_is_known_and_not_served(followed: Followed) -> None:
    """With words that say why; the old version of it does not live on, and a mended one is served again."""
    await followed.put("web", GOOD)
    await followed.changes("web")
    await followed.put("web", GOOD | {"owner": "x" * (LONGEST_OWNER + 1)})
    await followed.changes("web")

    registration = followed.registry.get(followed.id("web"))
    assert registration is not None
    assert registration.client is None
    assert registration.fault is not None
    assert registration.fault.message.startswith("spec.owner")
    assert followed.told.sizes[-1][1] == 1
    await followed.put("web", GOOD)
    await followed.changes("web")
    assert followed.client("web") is not None
    assert followed.told.sizes[-1][1] == 0


async def test_client_that_is_suspended_stays_known(followed: Followed) -> None:
    """So that the caller is told that it is suspended, and not that there is none."""
    await followed.put("web", GOOD | {"suspend": True})
    await followed.changes("web")

    client = followed.client("web")
    assert client is not None
    assert client.suspended


async def test_client_that_has_ended_stays_known(followed: Followed) -> None:
    """Its end is the decision's business, not the registry's."""
    await followed.put("web", GOOD | {"notAfter": "2020-01-01T00:00:00Z"})
    await followed.changes("web")

    client = followed.client("web")
    assert client is not None
    assert client.not_after == datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("spec", [GOOD | {"new": 1}, {**GOOD, "grants": [GRANT | {"new": 1}]}], ids=["spec", "grant"])
async def test_field_that_is_not_known_makes_no_client(followed: Followed, spec: dict[str, Any]) -> None:
    """It may be a restriction of a later version."""
    await followed.put("web", spec)
    await followed.put("app", GOOD)

    async def known() -> bool:
        return followed.client("app") is not None

    await until(known, what="the next one is known")
    assert followed.client("web") is None


async def test_what_stands_in_the_status_changes_nothing(followed: Followed) -> None:
    """Whoever may write there writes no client."""
    resource = token_client(followed.namespace, "web", **GOOD) | {"status": {"observedGeneration": 7}}
    await followed.source.apply(json.dumps(resource))
    await followed.changes("web")

    registration = followed.registry.get(followed.id("web"))
    assert registration is not None
    assert registration.status == {}
    assert registration.client is not None
    assert registration.client.generation != 7


async def test_whoever_is_told_can_ask_at_once(source: Source, namespace: str) -> None:
    """Also at the first sight of the source, when nothing was believed a moment ago."""
    followed = Followed(source, source.registry(Told()), Told(), namespace)
    await followed.put("web", GOOD)
    found: list[ClientId] = []

    def told(client_id: ClientId) -> None:
        registration = followed.registry.get(client_id)
        if registration is not None:
            found.append(registration.id)

    followed.registry.on_change = told
    async with followed.running():
        await followed.registry.synced.wait()

    assert followed.id("web") in found


async def test_nothing_is_decided_before_the_source_was_seen(source: Source) -> None:
    """An empty memory is not an empty registry."""
    registry = source.registry(Told())

    assert not registry.fresh
    assert not registry.synced.is_set()
    with pytest.raises(BrokerError) as refused:
        registry.get(Followed(source, registry, Told(), "n").id("web"))
    assert refused.value.reason is Reason.REGISTRY_STALE


async def test_what_happened_while_nobody_looked_is_found_by_comparing(source: Source, namespace: str) -> None:
    """A registry that has lost its place starts over, and tells of what changed, each once, and of nothing else."""
    async with Followed.start(source, namespace) as followed:
        for name in ("goes", "changes", "stays"):
            await followed.put(name, GOOD)
            await until(_known(followed, name), what=f"{name} is known")
        followed.told.changed.clear()
    await source.remove(followed.id("goes"))
    await followed.put("changes", GOOD | {"suspend": True})
    await followed.put("comes", GOOD)
    async with followed.running():
        await followed.changes("goes", "changes", "comes")

        assert followed.client("goes") is None
        assert followed.client("stays") is not None


async def test_source_out_of_reach_is_not_believed_for_long(
    source: Source, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nobody is served, and what changed is found once the source is back."""
    for module in (looking, watching):
        monkeypatch.setattr(module, "STALE_SECONDS", 2.0)
    async with Followed.start(source, namespace) as followed:
        await followed.put("web", GOOD)
        await until(_known(followed, "web"), what="the client is known")
        await source.cut()
        try:
            await until(followed.stale, what="the registry is stale")
            assert not followed.registry.fresh
        finally:
            await source.mend()
        await followed.put("app", GOOD)
        await until(_known(followed, "app"), what="the new client is known")


@pytest.mark.parametrize("grant", GRANTS.values(), ids=GRANTS.keys())
async def test_defaults_are_the_same_from_both(
    api_server: ClusterSource, tmp_path: Path, grant: dict[str, Any]
) -> None:
    """Files have no API server that completes them."""
    from_cluster, from_files = await _both(api_server, tmp_path, text_of("default", "web", GOOD | {"grants": [grant]}))

    assert from_cluster == from_files


@pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS.keys())
async def test_proofs_are_the_same_from_both(api_server: ClusterSource, tmp_path: Path, proof: dict[str, Any]) -> None:
    """Each kind of them."""
    from_cluster, from_files = await _both(
        api_server, tmp_path, text_of("default", "web", GOOD | {"authentication": [proof]})
    )

    assert from_cluster == from_files


@pytest.mark.parametrize("line", TEXTS.values(), ids=TEXTS.keys())
async def test_yaml_is_read_as_kubectl_reads_it(api_server: ClusterSource, tmp_path: Path, line: str) -> None:
    """What it takes for a text, a truth or a time."""
    text = yaml.safe_dump(token_client("default", "web", **GOOD)) + "".join(f"  {one}\n" for one in line.split("\n"))
    from_cluster, from_files = await _both(api_server, tmp_path, text)

    assert from_cluster == from_files


async def _both(api_server: ClusterSource, folder: Path, text: str) -> list[Client]:
    """Return a client as it is read from each source, but for what only one of them can know."""
    sources: list[Source] = [api_server, DirectorySource(folder / "clients")]
    clients = []
    for source in sources:
        await source.apply(text)
        async with Followed.start(source, "default") as followed:
            client = followed.client("web")
        await source.remove(followed.id("web"))
        assert client is not None
        clients.append(replace(client, uid="", generation=0))
    return clients


def _known(followed: Followed, name: str) -> Any:
    async def known() -> bool:
        return not await followed.stale() and followed.client(name) is not None

    return known

"""All instances of one client start at once: how long that takes, and what it costs the API server."""

import re
from collections import Counter
from pathlib import Path

from bench.errors import BenchError
from bench.vegeta import Generator, Target
from bench.world import ACCOUNT, NAMESPACE, World
from tests.support.broker import BrokerProcess, Registered, Tenant, basic

REQUESTS, CONNECTIONS = 5000, 64
REUSE = "1m"
CLIENT = "storm"

_TOKEN_REQUESTS = re.compile(r"^tokenbroker_token_request_duration_seconds_count (\S+)$", re.MULTILINE)


async def storm(world: World, generator: Generator) -> dict[str, float]:
    """Return ``storm_5000_seconds`` and ``storm_token_requests``: 5,000 requests of a client whose grant has ``reuse``.

    The time is from the first request to the last answer, connections made. It registers a client of its own, which
    nobody has asked for a token before.
    Raises BenchError where an answer is wrong, or the audit log has not one record for each.
    """
    client = await _registered(world)
    before = await _token_requests(world.broker)
    headers = {"Authorization": basic(*client.auth), "Content-Type": "application/json"}
    target = Target(CLIENT, f"{world.broker.url}/v1/tokens", headers, b"{}")
    results = await generator.volley(target, CONNECTIONS, REQUESTS)
    minted = await _token_requests(world.broker) - before
    seconds, tokens = await _read(world, generator, results)
    _check_records(world.broker, client, tokens)
    return {"storm_5000_seconds": seconds, "storm_token_requests": minted}


async def _registered(world: World) -> Registered:
    tenant = Tenant(world.lab.cluster, NAMESPACE)
    client = await tenant.client(CLIENT, {"serviceAccount": {"name": ACCOUNT}, "reuse": REUSE})
    await tenant.until_reason(CLIENT, "Ready")
    await world.broker.until_ready(client.id)
    return client


async def _token_requests(broker: BrokerProcess) -> float:
    found = _TOKEN_REQUESTS.search(await broker.metrics())
    if found is None:
        raise BenchError("the broker does not count its TokenRequests")
    return float(found[1])


async def _read(world: World, generator: Generator, results: Path) -> tuple[float, int]:
    """Return how long all answers took, and how many tokens there were, each of them checked."""
    expected, began, ended = world.brokered.expected, [], []
    answers: Counter[bytes] = Counter()
    async for hit in generator.hits(results):
        began.append(hit.at)
        ended.append(hit.at + hit.latency)
        if hit.status != expected.status:
            raise BenchError(f"storm: {world.checker.problem(hit, expected)}")
        token = hit.body.partition(b'"token":"')[2].partition(b'"')[0]
        if not answers[token] and (problem := world.checker.problem(hit, expected)):
            raise BenchError(f"storm: {problem}")
        answers[token] += 1
    if answers.total() != REQUESTS:
        raise BenchError(f"storm: {answers.total()} answers to {REQUESTS} requests")
    return max(ended) - min(began), len(answers)


def _check_records(broker: BrokerProcess, client: Registered, tokens: int) -> None:
    issued = [it for it in broker.records(client.id) if it["event"] == "token.issued"]
    requests, first = {it["request_id"] for it in issued}, sum(not it["reused"] for it in issued)
    if (len(issued), len(requests), first) != (REQUESTS, REQUESTS, tokens):
        raise BenchError(f"storm: {len(issued)} records of {len(requests)} requests for {first} of {tokens} tokens")

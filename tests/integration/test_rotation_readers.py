"""Readers of Vault that call the API server all the while a token is replaced, many times over (docs/rotation.md)."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest_asyncio

from broker.kube.token_requests import unverified_claims
from broker.model.stored_copy import CopyLabel
from broker.services.rotation.copy import MAX_RETIRED, READING_SLACK
from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.kept import Kept
from tests.support.lab import Lab
from tests.support.processes import until
from tests.support.readers import VaultReader

ONE_BY_ONE, AT_ONCE = 46, 4
CALLS_PER_READ = 8
RENEW_BEFORE = timedelta(minutes=20)
ROUNDING = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class State:
    """What was there at one time: the label, all anchors, and the versions whose tokens were accepted.

    That is asked with TokenReviews: to readers, a token whose anchor went would seem to work for 10 s more.
    """

    label: CopyLabel
    anchors: set[str]
    accepted: set[int]


@dataclass
class Story:
    """What happened. ``labels`` are those of versions that were the newest for a moment; not all were."""

    kept: Kept
    client: Registered
    broker: BrokerProcess
    readers: dict[str, VaultReader]
    delivered: list[int] = field(default_factory=list)
    tokens: dict[int, str] = field(default_factory=dict)
    labels: dict[int, CopyLabel] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    issuing_anchor: str = ""

    async def deliver(self) -> None:
        """Have a new version written, and look at it."""
        body = (await self.broker.call("POST", "/v1/tokens", {"deliver": "vault"}, auth=self.client.auth)).body
        self.delivered.append(body["vault"]["version"])
        self.tokens[self.delivered[-1]] = await self.kept.version(self.delivered[-1])

    async def change_ttl(self, ttl: str) -> None:
        """Change the grant, which makes a new version without a request."""
        version = max(self.tokens)
        await self.kept.tenant.patch("reader", {"grants": [grant(ttl)]})

        async def followed() -> bool:
            return (await self.kept.label()).version > version

        await until(followed, what="a version with the new TTL", programs=(self.broker.program,))
        await self.note()

    async def note(self) -> None:
        """Note the newest version, its token and its label, once both readers have called meanwhile."""
        version, token = await self.kept.newest()
        self.tokens[version], self.labels[version] = token, await self.kept.label()
        await asyncio.gather(*(reader.calls() for reader in self.readers.values()))

    async def keep_state(self, name: str) -> State:
        """Keep what is there now."""
        accepted = {number for number, token in self.tokens.items() if await self.kept.accepted(token)}
        self.states[name] = State(await self.kept.label(), await self.kept.anchors(), accepted)
        return self.states[name]


def grant(ttl: str) -> dict[str, Any]:
    """Return the grant."""
    return {"serviceAccount": {"name": "reader"}, "vault": {"ttl": ttl, "renewBefore": "20m"}}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def story(broker: BrokerProcess, installed: Lab) -> AsyncIterator[Story]:
    """Replace a token many times, and end the time of those that were replaced, with readers at work all along."""
    tenant = await Tenant.create(installed.cluster, "rotation-readers")
    client = await tenant.ready_client("reader", vault=grant("1h")["vault"])
    kept, pods = Kept(installed, tenant), f"/api/v1/namespaces/{tenant.namespace}/pods"
    readers = {
        "newest": VaultReader(installed.cluster, pods, kept.newest, calls_per_read=1),
        "patient": VaultReader(installed.cluster, pods, kept.newest, calls_per_read=CALLS_PER_READ),
    }
    told = Story(kept, client, broker, readers)
    await until(kept.there, what="a version is written", programs=(broker.program,))
    async with AsyncExitStack() as stack:
        for reader in readers.values():
            await stack.enter_async_context(reader.looping())
        await replace_often(told)
        await end_half(told)
        await end_all(told)
    yield told


async def replace_often(told: Story) -> None:
    """Replace the token on demand, one by one and at once, and by changes of the grant."""
    await told.note()
    for number in range(ONE_BY_ONE):
        await told.deliver()
        await told.note()
        if number == ONE_BY_ONE // 2:
            await told.change_ttl("2h")
    await asyncio.gather(*(told.deliver() for _ in range(AT_ONCE)))
    await told.change_ttl("1h")
    issued = await told.broker.call("POST", "/v1/tokens", {}, auth=told.client.auth)
    told.issuing_anchor = anchor_of(issued.body["token"])
    await told.keep_state("replaced")


async def end_half(told: Story) -> None:
    """Let the time of the eight oldest versions be over, and replace the token once more."""
    await told.readers["patient"].uses(max(told.tokens))
    oldest = [one.anchor.uid for one in (await told.kept.label()).retired[: MAX_RETIRED // 2]]
    await told.kept.let_expire(*oldest)
    await told.kept.until_gone(*oldest)
    await told.keep_state("half")
    await told.deliver()
    await told.note()
    await told.keep_state("half, replaced")


async def end_all(told: Story) -> None:
    """Let the time of all replaced versions be over."""
    await told.readers["patient"].uses(max(told.tokens))
    retired = [one.anchor.uid for one in (await told.kept.label()).retired]
    await told.kept.let_expire(*retired)
    await told.kept.until_gone(*retired)
    await asyncio.gather(*(reader.calls() for reader in told.readers.values()))
    await told.keep_state("all")


def anchor_of(token: str) -> str:
    """Return the UID of the Secret that a token is bound to."""
    return str(unverified_claims(token)["kubernetes.io"]["secret"]["uid"])


async def test_no_call_of_a_reader_is_refused(story: Story) -> None:
    """Whoever reads at each call, or keeps what was read for a while, gets answers and never a 401."""
    for reader in story.readers.values():
        assert set(reader.statuses) == {200}
        assert reader.statuses.total() > len(story.tokens)


async def test_readers_only_ever_see_newer_versions(story: Story) -> None:
    """No version comes back; the patient reader left versions out, so it called with old ones meanwhile."""
    for reader in story.readers.values():
        assert reader.seen == sorted(reader.seen)
        assert reader.seen[-1] == max(story.tokens)
    assert len(set(story.readers["patient"].seen)) < len(set(story.readers["newest"].seen))


async def test_every_version_is_there_once(story: Story) -> None:
    """Numbers go up by one, each delivery has one of its own, and each token is another one."""
    versions = ONE_BY_ONE + AT_ONCE + 4  # the first, two of a changed grant, and one after half was ended

    assert sorted(story.tokens) == list(range(1, versions + 1))
    assert len(set(story.delivered)) == len(story.delivered) == ONE_BY_ONE + AT_ONCE + 1
    assert len(set(story.tokens.values())) == versions


async def test_every_version_is_in_the_audit_log(story: Story) -> None:
    """There is one record for each token that was written, and none more."""
    records = [json.loads(line) for line in story.broker.audit_file.read_text().splitlines()]
    written = [record for record in records if (record["client"], record.get("delivery")) == (story.client.id, "vault")]
    digests = {hashlib.sha256(token.encode()).hexdigest() for token in story.tokens.values()}

    assert {record["token_sha256"] for record in written} == digests
    assert len(written) == len(digests)


async def test_label_describes_its_version(story: Story) -> None:
    """Number, client, times, id and anchor next to a version are those of the token in it."""
    _, resource = await story.kept.tenant.cluster.request("GET", f"{story.kept.tenant.path}/reader")
    assert len(story.labels) >= ONE_BY_ONE + 3
    for number, label in story.labels.items():
        claims = unverified_claims(story.tokens[number])
        assert (label.version, label.client_uid) == (number, resource["metadata"]["uid"])
        assert (label.issued_at.timestamp(), label.expires_at.timestamp()) == (claims["iat"], claims["exp"])
        assert (label.jti, label.anchor.uid) == (claims["jti"], anchor_of(story.tokens[number]))


async def test_replaced_version_is_kept_for_as_long_as_is_promised(story: Story) -> None:
    """Its anchor stays for renewBefore and a minute from its replacement on."""
    for number, label in story.labels.items():
        before = story.labels.get(number - 1)
        kept = {one.anchor: one.until for one in label.retired}
        if before is not None and before.anchor != label.anchor:
            promised = label.issued_at + RENEW_BEFORE + READING_SLACK
            assert abs(kept[before.anchor] - promised) <= ROUNDING


async def test_all_replaced_versions_work_however_many_they_are(story: Story) -> None:
    """More versions than have an anchor of their own came within minutes, and every token is accepted."""
    state = story.states["replaced"]

    assert len(state.accepted) == ONE_BY_ONE + AT_ONCE + 3 > MAX_RETIRED
    assert len(state.label.retired) == MAX_RETIRED


async def test_due_anchors_go_and_no_others(story: Story) -> None:
    """Versions whose time is over end, the others do not, and those to come have anchors of their own again."""
    before, after, replaced = (story.states[name] for name in ("replaced", "half", "half, replaced"))
    ended = {one.anchor.uid for one in before.label.retired[: MAX_RETIRED // 2]}
    bound = {number: anchor_of(token) for number, token in story.tokens.items()}

    assert before.anchors - after.anchors == ended
    assert after.accepted == {number for number in before.accepted if bound[number] not in ended}
    assert len(before.accepted - after.accepted) == len(ended)
    assert replaced.label.anchor.uid not in before.anchors
    assert replaced.accepted == after.accepted | {max(story.tokens)}


async def test_no_anchor_is_left_behind(story: Story) -> None:
    """At any time there are those of the label below the one for Vault, beside those for HTTP and for trials."""
    tops = await story.kept.tops()
    assert set(tops) == {"grant", "vault", "trial"}
    assert tops["grant"] == story.issuing_anchor
    for state in story.states.values():
        described = {state.label.anchor.uid, *(one.anchor.uid for one in state.label.retired)}
        assert state.anchors == {*tops.values()} | described

    assert len(story.states["all"].anchors) == len(tops) + 1
    assert story.states["all"].accepted == {max(story.tokens)}

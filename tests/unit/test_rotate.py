"""Keeping a copy current: when, how often, over whose data, and after which crash."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.errors import BrokerError, Fault, Reason
from broker.model.anchor import AnchorId, vault_anchor, version_anchor
from broker.model.audit_record import Origin
from broker.model.client import Client, ClientId, VaultCopy
from broker.model.limits import NamespaceLimits
from broker.model.token import Anchor
from broker.model.vault_path import CopyKey
from broker.services.bit_by_bit import FEW
from broker.services.rotation.copy import MAX_NAMED, MAX_RETIRED
from broker.services.rotation.rotate import CHECK_SECONDS
from broker.vault.answer import unavailable
from broker.vault.label import write_label
from tests.support.rotation import KEY, PLACE, RENEW_BEFORE, RULES, TTL, PowerCut, World, client, grant

PATH = PLACE.path(KEY)
TOP = vault_anchor("uid-1", grant())


@pytest.fixture
def world() -> World:
    """Return a world with one client that wants a copy."""
    world = World()
    world.registry.put(client())
    return world


async def until_renewal(world: World) -> None:
    """Let time pass until the copy is due."""
    renewal = world.facts().renewal_time
    assert renewal is not None
    world.clock.moment = renewal


async def test_the_first_visit_writes_a_working_token(world: World) -> None:
    """A grant that wants a copy has one after the first visit, and status and metrics tell of it."""
    await world.visit()

    token, facts = world.token(), world.facts()
    assert token is not None
    assert facts.renewal_time is not None
    assert world.watcher.renewal[KEY] == facts.renewal_time.timestamp()
    assert world.cluster.accepts(token)
    assert (facts.path, facts.version, facts.fault) == ("secret/tokenbroker/prod/shop/reporter/default", 1, None)
    assert facts.not_after == world.clock.now() + timedelta(seconds=TTL)
    assert facts.safe_poll_seconds == RENEW_BEFORE
    assert world.watcher.outcomes == ["success"]


async def test_what_another_replica_wrote_meanwhile_keeps_its_anchor_where_a_label_is_nearly_full(
    world: World,
) -> None:
    """It read the label when there was room for one more, and was cut off before it could describe its version."""
    await world.visit()
    for _ in range(MAX_RETIRED):
        await world.rotator.deliver(client(), KEY.grant, Origin("r"))
    other = await anchored_by_another(world)

    await world.rotator.deliver(client(), KEY.grant, Origin("r"))
    label = world.vault.entries[PATH].label
    assert label is not None

    assert other in [one.anchor for one in label.retired]
    assert sorted(world.cluster.versions) == sorted({label.anchor.name, *(one.anchor.name for one in label.retired)})


async def test_an_anchor_that_another_replica_made_for_the_next_version_is_used_where_a_label_is_full(
    world: World,
) -> None:
    """It looked when there was room for one more, and its write came to nothing."""
    await world.visit()
    for _ in range(MAX_RETIRED):
        await world.rotator.deliver(client(), KEY.grant, Origin("r"))
    entry = world.vault.entries[PATH]
    root = Anchor(TOP.name, world.cluster.anchors[TOP.name])
    other = await world.cluster.ensure(client(), version_anchor(TOP, root, len(entry.versions) + 1), root)

    for _ in range(2):
        await world.rotator.deliver(client(), KEY.grant, Origin("r"))
    assert entry.label is not None

    assert entry.label.anchor == other
    assert sorted(world.cluster.versions) == sorted({other.name, *(one.anchor.name for one in entry.label.retired)})


async def test_a_label_never_names_more_than_there_is_room_for(world: World) -> None:
    """However often another replica is cut off: what it wrote then ends by itself."""
    await world.visit()
    for _ in range(2 * MAX_NAMED):
        await anchored_by_another(world)
        await world.rotator.deliver(client(), KEY.grant, Origin("r"))
    label = world.vault.entries[PATH].label
    assert label is not None

    assert MAX_NAMED - 2 <= len(label.retired) <= MAX_NAMED
    assert len(write_label(label)) <= 64


async def anchored_by_another(world: World) -> Anchor:
    """Let another replica write a version with an anchor of its own, and not describe it; return the anchor."""
    entry = world.vault.entries[PATH]
    root = Anchor(TOP.name, world.cluster.anchors[TOP.name])
    anchor = await world.cluster.ensure(client(), version_anchor(TOP, root, len(entry.versions) + 1), root)
    entry.versions.append({"token": "another replica's"})
    return anchor


async def test_the_audit_record_is_written_before_the_token_gets_out(world: World) -> None:
    """Where the record cannot be written, nothing gets into Vault."""
    world.audit.fault = BrokerError(Reason.AUDIT_UNAVAILABLE, "disk full")

    with pytest.raises(BrokerError, match="audit_unavailable"):
        await world.visit()

    assert not world.vault.entries


async def test_the_audit_record_says_where_the_token_went(world: World) -> None:
    """The record carries the delivery, the token's id and its hash, and never the token."""
    await world.visit()

    (record,) = world.audit.records
    assert (record.delivery, record.subject) == ("vault", "system:serviceaccount:shop:reporter")
    assert record.jti == f"jti-{world.token()}"
    assert record.requested_seconds == record.granted_seconds == TTL


async def test_a_current_copy_is_left_alone(world: World) -> None:
    """A second visit writes nothing, and the next one is planned within the check interval."""
    await world.visit()
    before = world.token()

    wait = await world.visit()

    assert world.token() == before
    assert wait is not None
    assert CHECK_SECONDS <= wait <= 2 * CHECK_SECONDS


async def test_a_restarted_broker_leaves_a_current_copy_alone(world: World) -> None:
    """What is in Vault tells a broker without memory that nothing is due."""
    await world.visit()
    before = world.token()

    world.restart()
    await world.visit()

    assert world.token() == before
    assert world.facts().version == 1


async def test_a_due_copy_is_replaced_and_both_tokens_work(world: World) -> None:
    """Readers of the version before see no 401 for as long as they may take to look again."""
    await world.visit()
    old = world.token()
    await until_renewal(world)

    await world.visit()
    new = world.token()
    world.clock.pass_(RENEW_BEFORE)
    await world.visit()

    assert old is not None
    assert new is not None
    assert old != new
    assert not world.broken_readers()


async def test_a_copy_whose_time_has_come_costs_one_call_to_the_api_server(world: World) -> None:
    """Ten thousand of them may be due at once: no anchor is made that would be deleted when its token ends anyway."""
    await world.visit()
    await until_renewal(world)
    anchors, world.power.calls = dict(world.cluster.anchors), []

    await world.visit()

    assert [call for call in world.power.calls if call in {"ensure", "find", "mint", "delete"}] == ["mint"]
    assert world.cluster.anchors == anchors
    assert world.facts().version == 2
    assert world.audit.records[-1].origin.request_id


async def test_a_renewed_version_ends_with_the_anchor_that_it_shares(world: World) -> None:
    """Once somebody asks for another one, its anchor goes as that of every version that was replaced."""
    await world.visit()
    await until_renewal(world)
    await world.visit()
    shared = world.token()
    await world.rotator.deliver(client(), "default", Origin("r"))
    assert len(world.cluster.versions) == 2

    world.clock.pass_(RENEW_BEFORE + 61)
    await world.visit()

    assert shared is not None
    assert not world.cluster.accepts(shared)
    assert len(world.cluster.versions) == 1
    assert not world.broken_readers()


@pytest.mark.parametrize("top", [True, False], ids=["the one above all", "its own"])
async def test_a_renewal_whose_anchor_is_gone_gets_a_new_one(world: World, top: bool) -> None:  # noqa: FBT001
    """Somebody has deleted it: nothing is issued below it, and what is issued beside the copy goes on."""
    await world.visit()
    await until_renewal(world)
    gone = TOP.name if top else world.cluster.versions[0]
    await world.cluster.delete("shop", gone)

    await world.visit()

    token = world.token()
    assert token is not None
    assert world.cluster.accepts(token)
    assert world.facts().version == 2
    assert world.registry.book.get(client(), grant()) is not None


async def test_nothing_is_renewed_where_nobody_knows_what_is_allowed(world: World) -> None:
    """The labels of the namespace are too old: the operator may have taken back what they allowed."""
    await world.visit()
    await until_renewal(world)
    before = world.token()

    def unknown(_namespace: str) -> NamespaceLimits:
        raise BrokerError(Reason.REGISTRY_STALE, "labels")

    world.restart(replace(RULES, limits=unknown))
    with pytest.raises(BrokerError, match="registry_stale"):
        await world.visit()

    assert world.token() == before


async def renewals_own_anchors(world: World) -> int:
    """Let a copy's time come, and return how many versions have anchors then."""
    await until_renewal(world)
    await world.visit()
    return len(world.cluster.versions)


async def test_a_renewal_shares_an_anchor_only_where_no_attempt_was_cut_short(world: World) -> None:
    """The anchor that such an attempt has made would be left behind: the next version takes it."""
    await world.visit()
    shared = await renewals_own_anchors(world)
    world.audit.fault = BrokerError(Reason.AUDIT_UNAVAILABLE, "disk full")
    with pytest.raises(BrokerError, match="audit_unavailable"):
        await world.rotator.deliver(client(), "default", Origin("r"))
    world.audit.fault = None
    made = len(world.cluster.versions)

    assert (shared, made, await renewals_own_anchors(world)) == (1, 2, 2)
    assert await renewals_own_anchors(world) == 1  # the one before was tidied away


@pytest.mark.parametrize("how", ["restart", "lead lost", "lead gained"])
async def test_whoever_does_not_know_takes_no_attempt_for_whole(world: World, how: str) -> None:
    """A process that has just begun, or another one led meanwhile."""
    await world.visit()
    if how == "restart":
        world.restart()
        await world.visit()
    elif how == "lead lost":
        world.rotator.stand_back()
    else:
        world.rotator.lead()

    assert await renewals_own_anchors(world) == 2


async def test_a_version_of_another_replica_is_none_that_this_one_made_whole(world: World) -> None:
    """Its next attempt may have been cut short: the version that comes then takes the anchor of that."""
    await world.visit()
    mine, other = world.rotator, world.restart()
    await world.visit()
    await other.deliver(client(), "default", Origin("r"))
    world.rotator = mine
    await until_renewal(world)
    world.power.calls = []
    await world.visit()

    assert [call for call in world.power.calls if call in {"ensure", "find", "mint"}] == ["find", "ensure", "mint"]


async def test_the_anchor_above_is_asked_about_once_for_a_version(world: World) -> None:
    """Where a renewal needs an anchor of its own, after a start, it costs one call for that and one to make it."""
    await until_renewal_from_vault(world)
    world.power.calls = []

    await world.visit()

    assert [call for call in world.power.calls if call in {"ensure", "find", "mint"}] == ["find", "ensure", "mint"]


async def until_renewal_from_vault(world: World) -> None:
    """Let a copy be due for a process that has not looked at it yet."""
    await world.visit()
    await until_renewal(world)
    world.restart()


async def test_a_removed_copy_is_forgotten(world: World) -> None:
    """Copies that come and go take no memory."""
    await world.visit()
    del world.registry.known[KEY.client]
    await world.visit()

    assert not world.rotator._current._made_whole


@pytest.mark.parametrize("due", [True, False], ids=["its time has come", "asked for"])
async def test_nothing_is_written_that_the_operator_allows_no_more(world: World, due: bool) -> None:  # noqa: FBT001
    """Also before a broker that was started again has looked at the client."""
    await world.visit()
    await until_renewal(world)
    before = world.token()
    world.restart(replace(RULES, limits=lambda _namespace: NamespaceLimits(opted_in=False)))

    with pytest.raises(BrokerError, match="grant_forbidden"):
        await (world.visit() if due else world.rotator.deliver(client(), "default", Origin("r")))

    assert world.token() == before


async def test_the_anchor_of_a_replaced_version_goes_when_its_time_is_over(world: World) -> None:
    """After the last reader has looked again, only the current version's anchor is left."""
    await world.visit()
    await world.rotator.deliver(client(), "default", Origin("r"))
    assert len(world.cluster.versions) == 2

    world.restart()
    world.clock.pass_(RENEW_BEFORE + 61)
    await world.visit()

    assert len(world.cluster.versions) == 1
    token = world.token()
    assert token is not None
    assert world.cluster.accepts(token)


async def test_no_anchor_of_a_replaced_version_goes_early(world: World) -> None:
    """Deliveries in quick succession kill no token that a slow reader may hold."""
    await world.visit()
    for _ in range(50):
        await world.rotator.deliver(client(), "default", Origin("r"))
        world.clock.pass_(10)
        assert not world.broken_readers()

    assert len(world.cluster.versions) <= 20

    world.clock.pass_(RENEW_BEFORE + 61)
    await world.visit()
    assert len(world.cluster.versions) == 1


async def test_a_delivery_answers_with_what_readers_get(world: World) -> None:
    """A delivered version is on top, names its caller in the audit record, and is there at once."""
    await world.visit()

    delivered = await world.rotator.deliver(client(), "default", Origin("request-7", "192.0.2.1"))

    assert (delivered.path, delivered.version) == ("secret/tokenbroker/prod/shop/reporter/default", 2)
    assert delivered.expires_at == world.clock.now() + timedelta(seconds=TTL)
    record = world.audit.records[-1]
    assert (record.origin.request_id, record.origin.remote, record.jti) == (
        "request-7",
        "192.0.2.1",
        f"jti-{world.token()}",
    )


async def test_a_delivery_for_a_grant_without_vault_is_refused(world: World) -> None:
    """Nothing is written where the grant does not say so."""
    plain = client(grants=(grant(vault=None),))
    world.registry.put(plain)

    with pytest.raises(BrokerError, match="delivery_not_configured"):
        await world.rotator.deliver(plain, "default", Origin("r"))

    assert not world.vault.entries


async def test_a_delivery_for_a_predecessor_is_refused(world: World) -> None:
    """A client that was recreated while its request waited gets nothing written in its successor's name."""
    with pytest.raises(BrokerError, match="delivery_not_configured"):
        await world.rotator.deliver(client(uid="uid-0"), "default", Origin("r"))

    assert not world.vault.entries


async def test_a_delivery_while_vault_is_away_says_so_and_mints_nothing(world: World) -> None:
    """Vault is asked first, so its outage makes no tokens."""
    world.vault.fault = unavailable("sealed")

    with pytest.raises(BrokerError, match="vault_unavailable"):
        await world.rotator.deliver(client(), "default", Origin("r"))

    assert not world.cluster.tokens
    fault = world.facts().fault
    assert fault is not None
    assert fault.reason is Reason.VAULT_UNAVAILABLE


async def test_a_failure_keeps_what_is_known_and_names_the_fault(world: World) -> None:
    """While Vault is away, status still says until when readers are served; afterwards the fault goes."""
    await world.visit()
    known = world.facts()
    world.vault.fault = unavailable("sealed")

    with pytest.raises(BrokerError, match="vault_unavailable"):
        await world.visit()
    during = world.facts()
    world.vault.fault = None
    await world.visit()

    assert replace(during, fault=None) == known
    assert during.fault is not None
    assert world.facts() == known
    assert world.watcher.outcomes == ["success", "vault_unavailable"]


async def test_a_foreign_path_is_never_overwritten(world: World) -> None:
    """Where somebody else's data lives, the broker reports it and touches nothing."""
    world.vault.stranger_writes(PATH)

    with pytest.raises(BrokerError, match="vault_path_taken"):
        await world.visit()

    entry = world.vault.entries[PATH]
    assert (entry.versions, entry.label) == ([{"k": "v"}], None)
    assert not world.cluster.tokens


async def test_another_clusters_path_is_never_overwritten(world: World) -> None:
    """Two clusters with one name do not write over each other."""
    await world.visit()
    label = world.vault.entries[PATH].label
    assert label is not None
    foreign = replace(label, server="https://api.other.example", client_uid="uid-of-the-other")
    world.vault.entries[PATH].label = foreign

    with pytest.raises(BrokerError, match="vault_path_taken"):
        await world.visit()

    assert world.vault.entries[PATH].label == foreign


async def test_a_recreated_client_replaces_its_predecessors_copy(world: World) -> None:
    """A TokenClient that was deleted and made again gets a path of its own, and the old anchors go."""
    await world.visit()
    old = world.token()
    world.registry.put(client(uid="uid-2"))

    await world.visit()

    assert old is not None
    assert not world.cluster.accepts(old)
    label = world.vault.entries[PATH].label
    assert label is not None
    assert label.client_uid == "uid-2"
    assert world.facts().version == 1


@pytest.mark.parametrize("damage", ["delete_current", "stranger_writes"])
async def test_damaged_data_is_replaced_on_the_next_visit(world: World, damage: str) -> None:
    """A version that was deleted, or written over, gets a fresh one on top of it."""
    await world.visit()
    getattr(world.vault, damage)(PATH)

    await world.visit()

    token = world.token()
    assert token is not None
    assert world.cluster.accepts(token)
    assert world.facts().version == len(world.vault.entries[PATH].versions)


async def test_a_write_that_meets_another_version_is_tried_again(world: World) -> None:
    """A conflict overwrites nothing; the next visit looks again and goes on top."""
    await world.visit()
    await until_renewal(world)
    inspect = world.vault.inspect

    async def raced(path: tuple[str, ...]) -> object:
        copy = await inspect(path)
        world.vault.stranger_writes(path)
        return copy

    world.vault.inspect = raced  # type: ignore[method-assign, assignment]
    with pytest.raises(BrokerError, match="vault_write_conflict"):
        await world.visit()
    world.vault.inspect = inspect  # type: ignore[method-assign]
    await world.visit()

    token = world.token()
    assert token is not None
    assert world.cluster.accepts(token)
    assert world.facts().version == 3


@pytest.mark.parametrize(
    "changed",
    [
        grant(service_account="auditor"),
        grant(audiences=("https://other",)),
        grant(vault=VaultCopy(3600, 1200)),
    ],
    ids=["account", "audience", "ttl"],
)
async def test_a_changed_grant_gets_a_token_of_its_new_kind(world: World, changed: object) -> None:
    """A copy for another account, audience or life is replaced at once."""
    await world.visit()
    world.registry.put(client(generation=2, grants=(changed,)))

    await world.visit()

    assert world.facts().version == 2


async def test_a_shortened_token_is_renewed_in_proportion(world: World) -> None:
    """Where the API server grants less, renewal and the safe poll shrink with it."""
    world.cluster.longest_seconds = 3600

    await world.visit()

    facts = world.facts()
    assert facts.safe_poll_seconds == 1200
    assert facts.renewal_time is not None
    assert facts.not_after is not None
    assert facts.not_after - facts.renewal_time >= timedelta(seconds=1200)


async def test_a_clock_that_is_wrong_does_not_rotate_in_circles(world: World) -> None:
    """Even where every token seems expired on arrival, visits stay half a minute apart."""
    world.cluster.longest_seconds = -3600

    assert await world.visit() == 30


@pytest.mark.parametrize(
    "away", [{"suspended": True}, {"not_after": World().clock.now()}], ids=["suspended", "expired"]
)
async def test_a_client_that_may_have_nothing_is_not_rotated(world: World, away: dict[str, object]) -> None:
    """Its copy stays as it is, is not removed either, and the old anchors go all the same."""
    await world.visit()
    await world.rotator.deliver(client(), "default", Origin("r"))
    world.registry.put(client(**away))
    world.clock.pass_(TTL)

    wait = await world.visit()

    assert world.facts().version == 2
    assert len(world.cluster.versions) == 1
    assert wait is not None
    assert wait >= CHECK_SECONDS


async def test_a_suspended_client_without_a_copy_gets_none(world: World) -> None:
    """Nothing is written for a client that was suspended from the start."""
    world.registry.put(client(suspended=True))

    await world.visit()

    assert not world.vault.entries


async def test_a_grant_that_is_never_allowed_gets_no_copy(world: World) -> None:
    """What was barred when the grant was looked at is refused here too."""
    made = client(grants=(grant(service_account="default"),))
    world.registry.put(made)
    world.registry.book.bar(made, made.grants[0], Fault(Reason.GRANT_FORBIDDEN, "never"))

    with pytest.raises(BrokerError, match="grant_forbidden"):
        await world.visit()

    assert not world.cluster.tokens


async def test_an_invalid_registration_changes_nothing(world: World) -> None:
    """A specification that cannot be read neither renews nor removes a copy."""
    await world.visit()
    world.registry.invalidate(KEY.client)

    assert await world.visit() is None

    assert PATH in world.vault.entries
    assert not world.rotator._wanted.nowhere(KEY)


@pytest.mark.parametrize("withdrawn", ["client", "grant"])
async def test_a_copy_that_nobody_wants_is_removed_with_its_anchors(world: World, withdrawn: str) -> None:
    """Neither data, metadata nor anchors are left of it, and it is shown no more."""
    await world.visit()
    await world.rotator.deliver(client(), "default", Origin("r"))
    if withdrawn == "client":
        del world.registry.known[KEY.client]
    else:
        world.registry.put(client(grants=(grant(vault=None),)))

    assert await world.visit() is None

    assert not world.vault.entries
    assert not world.cluster.anchors
    assert not world.watcher.expiry
    if withdrawn == "grant":
        assert world.watcher.facts[KEY] is None


async def test_a_copy_is_removed_without_rights_in_its_namespace(world: World) -> None:
    """Where the broker's Role went with the client, the path goes, and the anchors with their TokenClient."""
    await world.visit()
    del world.registry.known[KEY.client]
    world.cluster.delete_fault = BrokerError(Reason.BROKER_NOT_AUTHORIZED, "no Role")

    await world.visit()

    assert not world.vault.entries


async def test_nothing_is_removed_on_the_word_of_a_stale_registry(world: World) -> None:
    """A broker that lost sight of its clients takes none of them for gone."""
    await world.visit()
    world.registry.known.clear()
    world.registry.stale = True

    with pytest.raises(BrokerError, match="registry_stale"):
        await world.visit()

    assert PATH in world.vault.entries


async def test_a_foreign_path_is_never_removed(world: World) -> None:
    """What the broker did not make, or another cluster keeps current, is not its to delete."""
    await world.visit()
    entry = world.vault.entries[PATH]
    assert entry.label is not None
    entry.label = replace(entry.label, server="https://api.other.example")
    stranger = PLACE.path(CopyKey(ClientId("shop", "else"), "default"))
    world.vault.stranger_writes(stranger)
    world.registry.known.clear()

    await world.visit()
    await world.visit(CopyKey(ClientId("shop", "else"), "default"))

    assert set(world.vault.entries) == {PATH, stranger}


async def test_a_sweep_hands_over_what_nobody_wants_and_nothing_else(world: World) -> None:
    """What was left behind while the broker was away is found by listing; suspended and invalid stay."""
    await world.visit()
    for name, state in (("gone", None), ("suspended", True), ("invalid", False)):
        other = ClientId("shop", name)
        world.registry.put(client(id=other, uid=f"uid-{name}", suspended=bool(state)))
        label = world.vault.entries[PATH].label
        assert label is not None
        path = PLACE.path(CopyKey(other, "default"))
        await world.vault.label(path, replace(label, client=other, client_uid=f"uid-{name}"))
    del world.registry.known[ClientId("shop", "gone")]
    world.registry.invalidate(ClientId("shop", "invalid"))
    world.vault.stranger_writes((*PLACE.root, "shop", "UPPER", "default"))
    found: list[CopyKey] = []

    await world.sweeper(found.append).visit("prod")

    assert found == [CopyKey(ClientId("shop", "gone"), "default")]


async def test_only_the_leader_sweeps(world: World) -> None:
    """A call for each client is too many for each replica."""
    await world.visit()
    del world.registry.known[KEY.client]
    found: list[CopyKey] = []
    world.cluster.leading = False
    await world.sweeper(found.append).visit("prod")
    following = [call for call in world.power.calls if "children" in call]
    world.cluster.leading = True
    await world.sweeper(found.append).visit("prod")

    assert following == []
    assert found == [KEY]


async def test_who_takes_the_lead_sweeps_at_once(world: World) -> None:
    """Also where it has swept a while ago, and somebody else has led since."""
    await world.visit()
    found: list[CopyKey] = []
    sweeper = world.sweeper(found.append)
    sweeping = asyncio.create_task(sweeper.queue.run())
    sweeper.lead()
    await asyncio.sleep(0.01)
    del world.registry.known[KEY.client]
    sweeper.lead()
    await asyncio.sleep(0.01)
    sweeping.cancel()

    assert found == [KEY]


async def test_a_sweep_ends_with_the_lead(world: World) -> None:
    """What it finds after that is somebody else's, and it asks for no other client's copies."""
    await world.visit()
    label = world.vault.entries[PATH].label
    assert label is not None
    for name in ("one", "other"):
        await world.vault.label(PLACE.path(CopyKey(ClientId("shop", name), "default")), label)
    del world.registry.known[KEY.client]
    found: list[CopyKey] = []
    asked, children = list[tuple[str, ...]](), world.vault.children

    async def lost(path: tuple[str, ...]) -> list[str]:
        asked.append(path)
        world.cluster.leading = len(path) < len(PATH) - 1
        return await children(path)

    world.vault.children = lost  # type: ignore[method-assign]
    await world.sweeper(found.append).visit("prod")

    assert found == []
    assert len([path for path in asked if len(path) == len(PATH) - 1]) == 1


async def test_changes_put_the_right_copies_in_line(world: World) -> None:
    """New, changed and withdrawn copies are visited; a change of the status alone is not."""
    world.rotator.changed(KEY.client)
    assert len(world.rotator.queue) == 1

    world.rotator.queue.forget(KEY)
    world.rotator.changed(KEY.client)
    assert len(world.rotator.queue) == 0

    world.registry.put(client(generation=2, grants=(grant(name="other"),)))
    world.rotator.changed(KEY.client)
    assert len(world.rotator.queue) == 2

    world.rotator.queue.forget(KEY)
    world.rotator.queue.forget(CopyKey(KEY.client, "other"))
    world.registry.known.clear()
    world.rotator.changed(KEY.client)
    assert len(world.rotator.queue) == 1


@pytest.mark.parametrize("after_effect", [False, True], ids=["before-effect", "after-effect"])
@pytest.mark.parametrize("step", range(9))
@pytest.mark.parametrize("start", ["empty", "due", "tidy", "removal"])
async def test_a_crash_between_any_two_calls_heals(world: World, start: str, step: int, *, after_effect: bool) -> None:
    """Whenever the broker dies, its successor ends with one described version, and nothing is left behind."""
    if start != "empty":
        await world.visit()
        await until_renewal(world)
    if start == "tidy":
        await world.visit()
        world.clock.pass_(RENEW_BEFORE + 61)
    if start == "removal":
        del world.registry.known[KEY.client]

    world.restart()
    world.power.cut_at, world.power.after_effect = step, after_effect
    with contextlib.suppress(PowerCut):
        await world.visit()
    assert start == "removal" or not world.broken_readers()
    world.restart()
    await world.visit()

    if start == "removal":
        assert not world.vault.entries
        assert not world.cluster.anchors
        return
    assert not world.broken_readers()
    entry = world.vault.entries[PATH]
    assert entry.label is not None
    assert entry.label.version == len(entry.versions)
    world.registry.put(client(suspended=True))  # so that nothing new is written while time passes
    world.clock.pass_(RENEW_BEFORE + 61)
    await world.visit()
    assert not world.broken_readers()
    assert len(world.cluster.versions) == 1


async def test_a_copy_is_replaced_when_the_anchor_above_its_versions_went(world: World) -> None:
    """Suspending deletes it; the first visit after resuming makes another one, and a version that works."""
    await world.visit()
    old = world.token()
    world.registry.put(client(suspended=True))
    await world.cluster.delete(KEY.client.namespace, TOP.name)
    await world.visit()
    assert (world.token(), world.facts().version) == (old, 1)

    world.registry.put(client())
    await world.visit()

    token = world.token()
    assert token is not None
    assert token != old
    assert world.cluster.accepts(token)
    assert len(world.cluster.versions) == 1


async def test_a_crash_after_the_anchor_at_the_top_was_made_again_heals(world: World) -> None:
    """That it is there does not make the version below the former one any better."""
    await world.visit()
    await world.cluster.delete(KEY.client.namespace, TOP.name)
    await world.cluster.ensure(client(), TOP)
    world.restart()

    await world.visit()

    token = world.token()
    assert token is not None
    assert world.cluster.accepts(token)


async def test_a_new_version_is_written_when_somebody_asks_for_one(world: World) -> None:
    """Once a request, and readers of the version before have their time."""
    await world.visit()
    old = world.token()
    world.clock.pass_(60)
    world.registry.put(client(rotate_requested=world.clock.now()))

    await world.visit()
    world.clock.pass_(60)
    await world.visit()

    assert world.facts().version == 2
    assert old is not None
    assert world.cluster.accepts(old)


async def test_what_is_asked_for_in_the_future_is_not_done_yet(world: World) -> None:
    """Or every visit until then would write a version."""
    await world.visit()
    world.registry.put(client(rotate_requested=world.clock.now() + timedelta(hours=1)))

    await world.visit()

    assert world.facts().version == 1


async def test_a_request_for_a_new_version_is_news(world: World) -> None:
    """An annotation changes no generation."""
    world.registry.put(client())
    world.rotator.changed(KEY.client)
    world.rotator.queue.forget(KEY)

    world.registry.put(client(rotate_requested=world.clock.now()))
    world.rotator.changed(KEY.client)

    assert len(world.rotator.queue) == 1


async def test_a_replica_that_does_not_lead_writes_and_removes_nothing(world: World) -> None:
    """Not even where a copy is missing, or nobody wants it."""
    world.cluster.leading = False

    await world.visit()
    assert not world.vault.entries

    world.cluster.leading = True
    await world.visit()
    world.cluster.leading = False
    wanted = await world.visit()
    del world.registry.known[KEY.client]
    unwanted = await world.visit()

    assert PATH in world.vault.entries
    assert (wanted, unwanted) == (CHECK_SECONDS, None), "or a replica that never leads would remember each that went"


async def test_a_delivery_of_a_follower_hangs_below_the_leaders_anchor(world: World) -> None:
    """It makes none at the top, where a stale replica could give tokens a new life."""
    world.cluster.leading = False
    with pytest.raises(BrokerError, match="anchor_missing"):
        await world.rotator.deliver(client(), "default", Origin("r"))

    await world.cluster.ensure(client(), TOP)
    delivered = await world.rotator.deliver(client(), "default", Origin("r"))

    assert delivered.version == 1


async def test_nothing_is_written_for_a_grant_that_was_not_looked_at(world: World) -> None:
    """And nothing said of it: the reconciler is about to look."""
    world.registry.book.forget(KEY.client)

    wait = await world.visit()

    assert wait == CHECK_SECONDS
    assert not world.vault.entries
    assert KEY not in world.watcher.facts


async def test_a_grant_that_was_looked_at_is_visited_at_once(world: World) -> None:
    """If it is one of those that are kept in Vault."""
    world.rotator.changed(KEY.client)
    world.rotator.queue.forget(KEY)

    world.rotator.prepared(KEY.client, "another")
    assert len(world.rotator.queue) == 0

    world.rotator.prepared(KEY.client, "default")
    assert len(world.rotator.queue) == 1


async def test_whoever_begins_to_lead_visits_every_copy(world: World) -> None:
    """What the leader before has done is not known."""
    world.rotator.changed(KEY.client)
    world.rotator.queue.forget(KEY)

    world.rotator.lead()

    assert len(world.rotator.queue) == 1


@pytest.mark.parametrize("why", ["lead", "revisit"])
async def test_many_copies_are_taken_in_bit_by_bit(world: World, why: str) -> None:
    """So that callers wait for a few of them at most, in a broker that has ten thousand."""
    many = [replace(client(), id=ClientId("shop", f"client-{number}")) for number in range(FEW + 1)]
    for one in many:
        world.registry.put(one)
        world.rotator.changed(one.id)
        world.rotator.queue.forget(CopyKey(one.id, "default"))

    world.rotator.lead() if why == "lead" else world.rotator.revisit({"shop"})
    at_once = len(world.rotator.queue)
    await asyncio.sleep(0)

    assert at_once == FEW
    assert len(world.rotator.queue) > FEW


async def test_a_namespace_whose_copies_may_be_lost_is_visited_and_no_other(world: World) -> None:
    """All of its grants that are kept in Vault, and none of its neighbours'."""
    neighbour = client(id=ClientId("shops", "reporter"), uid="uid-2")
    world.registry.put(neighbour)
    for one in (KEY.client, neighbour.id):
        world.rotator.changed(one)
        world.rotator.queue.forget(CopyKey(one, "default"))

    world.rotator.revisit({"shop", "other"})
    of_shop = len(world.rotator.queue)
    world.rotator.queue.forget(KEY)

    assert (of_shop, len(world.rotator.queue)) == (1, 0)


async def test_the_copy_of_a_client_that_is_being_deleted_is_removed(world: World) -> None:
    """It need not have gone yet: the broker's finalizer may hold it."""
    await world.visit()
    known = world.registry.known[KEY.client]
    world.registry.known[KEY.client] = replace(known, deleting=True)

    await world.visit()

    assert not world.vault.entries
    assert not world.cluster.anchors


async def test_grant_that_is_barred_while_its_anchor_is_made_gets_no_version(world: World) -> None:
    """Who barred it has deleted the anchors before this one was there, and would not do so again."""
    await world.visit()
    world.registry.put(client(rotate_requested=world.clock.now() + timedelta(seconds=1)))
    world.clock.pass_(2)
    before = world.token()
    barred, ensure = Fault(Reason.ACCOUNT_TOO_STRONG, "strong"), world.cluster.ensure

    async def ensure_late(client: Client, which: AnchorId, parent: Anchor | None = None) -> Anchor:
        world.registry.book.bar(client, grant(), barred)
        return await ensure(client, which, parent)

    world.cluster.ensure = ensure_late  # type: ignore[method-assign]
    with pytest.raises(BrokerError) as refused:
        await world.visit()

    assert refused.value.reason is Reason.ACCOUNT_TOO_STRONG
    assert world.token() == before
    assert len(world.audit.records) == 1

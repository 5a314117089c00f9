"""What must hold at every moment, and what must hold when nothing has gone wrong for long enough."""

from collections.abc import Iterator

from prometheus_client.samples import Sample

from broker.model.anchor import AnchorKind, grant_anchor, trial_anchor, vault_anchor, version_anchor
from broker.model.client import Grant
from broker.model.former_grants import FormerGrant
from broker.model.token import Anchor
from broker.services.rotation.copy import READING_SLACK
from broker.services.token_anchors import BUCKET_SECONDS, BUCKETS_IN_USE
from broker.services.workqueue import Lane
from tests.model.clients import RENEW_BEFORE, path_of
from tests.model.kubernetes import Resource, Secret
from tests.model.replica import Replica
from tests.model.truth import Key, key_of
from tests.model.world import World

CALM = 1500.0
"""After so long without trouble everything is as it should be: 20 minutes until a copy is looked at, and backoff."""


TIDIED_WITHIN = 120.0
"""A visit that is planned for an anchor's end, a wait before it of 30 s, and a second attempt."""


RENEWED_WITHIN = 600.0
"""So long a replica has to be able to lead for a copy to be renewed that is due, whatever came before: until a leader
that is cut off is found out and another one leads (75 s), a watch that was cut is listed again (135 s), and what failed
is tried again, in the registry, at the account and in Vault (60 s each)."""


def always(world: World) -> Iterator[str]:
    """Return what is wrong now and would be at any time."""
    yield from world.wrong
    yield from world.audit.wrong
    leaders = [it.name for it in world.replicas.values() if it.leading]
    if len(leaders) > 1:
        yield f"two lead: {leaders}"
    for it in world.replicas.values():
        yield from (f"{it.name} ended by {error!r}" for error in it.ended)
    yield from _innocents(world)
    yield from _readers(world)
    yield from _renewed(world)
    yield from _kept_too_long(world)
    yield from _strangers(world)


def _innocents(world: World) -> Iterator[str]:
    """Return what was handed out and does not work, though its time is not over and there was no reason to end it."""
    for held in world.held:
        token = world.kube.tokens[held.value]
        if held.revoked or token.expires_at <= world.kube.now() or world.kube.accepts(held.value):
            continue
        if _without_reason(world, held.key, token.anchor_uid):
            yield f"{held.value} of {held.key} was ended for no reason"


def _without_reason(world: World, key: Key, anchor_uid: str) -> bool:
    top = world.kube.top(anchor_uid)
    _, made_at = world.kube.kinds[top]
    return top not in world.audit.ended_late and world.truth.innocent(key, made_at)


def _readers(world: World) -> Iterator[str]:
    """Return tokens that do not work, though somebody holds them who looks into Vault as often as he should."""
    keys, now = dict(world.tokens()), world.kube.monotonic()
    for value, read_at in world.reads.items():
        token = world.kube.tokens[value]
        if (
            read_at < now - RENEW_BEFORE[keys[value].grant]
            or token.expires_at <= world.kube.now()
            or world.kube.accepts(value)
        ):
            continue
        if _without_reason(world, keys[value], token.anchor_uid):
            yield f"{value} of {keys[value]}, which readers of Vault hold, was ended for no reason"


def _renewed(world: World) -> Iterator[str]:
    """Return copies in Vault that have expired though they could have been renewed in time."""
    for key, past in world.truth.past.items():
        token = world.current(path_of(past.client, key.grant))
        if token is None or past.served is None:
            continue
        ended = world.kube.tokens[token].expires_at
        late = world.kube.monotonic() - (world.kube.now() - ended).total_seconds()
        due = late - RENEW_BEFORE[key.grant]
        could = world.calm.lasted(due, world.kube.monotonic()) >= RENEWED_WITHIN
        well = could and max(past.served, past.harmed, world.redated) < due
        if ended <= world.kube.now() and well and dict(world.tokens())[token] == key:
            yield f"{token} of {key} has expired in Vault"


def _kept_too_long(world: World) -> Iterator[str]:
    """Return versions that were replaced and work long after no reader may hold them, though nothing was in the way."""
    for one in world.audit.owed.over(world.kube, TIDIED_WITHIN):
        past = world.truth.past[Key(one.client_uid, one.copy.grant, one.account)]
        path = path_of(one.copy.client, one.copy.grant)
        lost = path in world.unlabelled | world.audit.labelled_late | set(world.strangers)
        if past.served is not None and not lost and max(past.served, past.harmed, world.disturbed) < one.until:
            yield f"the version of {one.uid} in {'/'.join(path)} should have ended at {one.until:.0f}"


def _strangers(world: World) -> Iterator[str]:
    for path, versions in world.strangers.items():
        entry = world.vault.entries.get(path)
        if entry is None or not entry.stranger or len(entry.versions) != versions:
            yield f"somebody else's {'/'.join(path)} was touched"


def ended_in_time(world: World) -> Iterator[str]:
    """Return which tokens live, and which anchors are there, that a registry has long told to end."""
    for key, past in world.truth.past.items():
        if past.blind is not None and past.blind <= world.kube.monotonic():
            yield from _alive(world, key, "should have ended in time")


def _alive(world: World, key: Key, what: str) -> Iterator[str]:
    if key.uid in world.kube.nobodys:
        return  # nobody had the right to end them
    for value, its in world.tokens():
        if its == key and world.kube.accepts(value) and not _made_late(world, world.kube.tokens[value].anchor_uid):
            yield f"{value} of {key} {what}"


def _made_late(world: World, uid: str) -> bool:
    there = {secret.uid: secret for secret in world.kube.secrets.values()}
    while uid in there:
        if there[uid].late:
            return True
        uid = there[uid].owner
    return False


def at_rest(world: World) -> Iterator[str]:
    """Return what is not as it should be though nothing has gone wrong for long."""
    for key, past in world.truth.past.items():
        if past.since is not None and not _unlooked(world, key):
            yield from _alive(world, key, "should have ended")
    keys = dict(world.tokens())
    for value, who in world.owed.items():
        if keys[value].uid in world.kube.nobodys:
            continue  # nobody had the right to end it
        if world.kube.accepts(value) and not _made_late(world, world.kube.tokens[value].anchor_uid):
            yield f"{value} was owed by {who.name} and lives"
    yield from (
        f"{held.value} was revoked and lives" for held in world.held if held.revoked and world.kube.accepts(held.value)
    )
    leaders = [it for it in world.replicas.values() if it.leading]
    if len(leaders) != 1:
        yield f"{len(leaders)} lead"
        return
    yield from _left_behind(world)
    for it in world.kube.resources.values():
        if it.deleting:
            yield f"{it.client.id} waits to be let go"
        yield from _client(world, it, leaders[0])
    yield from _metrics(world, leaders[0])


def _unlooked(world: World, key: Key) -> bool:
    """Tell whether nobody can look at an account: then nothing is found out about it, nor handed out."""
    past = world.truth.past[key]
    it = world.kube.resources.get(past.client)
    if it is None or it.client.uid != key.uid or world.truth.told_reasons(key, past.client):
        return False
    return not it.valid or key.account not in world.kube.accounts


def _client(world: World, it: Resource, leader: Replica) -> Iterator[str]:
    served = [one for one in it.client.grants if world.truth.in_order(it, one)]
    ready = it.valid and not it.deleting and len(served) == len(it.client.grants)
    conditions = {one["type"]: one for one in it.status.get("conditions", ())}
    said = conditions.get("Ready", {})
    if it.deleting:
        return
    if (said.get("status") == "True") is not ready or it.status.get("observedGeneration") != it.client.generation:
        yield f"{it.client.id} is {'' if ready else 'not '}ready, and its status says {said}"
    labels = {"namespace": it.client.id.namespace, "client": it.client.id.name}
    gauge = _value(leader, "tokenbroker_client_ready", **labels)
    if gauge != float(ready):
        yield f"the gauge of {it.client.id} is {gauge}"
    for one in it.client.grants:
        yield from _copy(world, it, one, leader, wanted=one.vault is not None and one in served)
    synced = conditions.get("VaultSynced", {}).get("status")
    paths = [path_of(it.client.id, one.name) for one in it.client.grants if one.vault is not None]
    if ready and paths and (synced == "True") is not set(paths).isdisjoint(world.strangers):
        yield f"VaultSynced of {it.client.id} is {synced}"


def _copy(world: World, it: Resource, grant: Grant, leader: Replica, *, wanted: bool) -> Iterator[str]:
    path = path_of(it.client.id, grant.name)
    entry, token = world.vault.entries.get(path), world.current(path)
    labels = {"namespace": it.client.id.namespace, "client": it.client.id.name, "grant": grant.name}
    gauge = _value(leader, "tokenbroker_vault_token_expiry_timestamp_seconds", **labels)
    if path in world.strangers:
        return
    if grant.vault is None or not it.valid:
        if it.valid and entry is not None:
            yield f"{path} is left in Vault"
        return
    if not wanted:
        return
    label = entry.label if entry is not None else None
    if label is not None and label.anchor.uid in world.taken:
        return  # nobody looks whether the anchor of a single version is there: it is replaced when its time comes
    if entry is None or label is None or token is None or not world.kube.accepts(token):
        yield f"{path} holds {token}, which does not work"
    elif label.version != len(entry.versions) or label.client_uid != it.client.uid:
        yield f"{path} is labelled {label.version} of {label.client_uid}"
    elif gauge != label.expires_at.timestamp():
        yield f"the expiry of {path} is shown as {gauge}"
    else:
        shown = next((one.get("vault") for one in it.status.get("grants", ()) if one["name"] == grant.name), None)
        if shown is None or shown["version"] != len(entry.versions):
            yield f"the status shows {shown} of {path}"


def _metrics(world: World, leader: Replica) -> Iterator[str]:
    orphans = _value(leader, "tokenbroker_orphaned_grants")
    if orphans:
        yield f"{orphans:g} orphans are counted"
    for it in world.replicas.values():
        shown = [sample.labels for sample in _samples(it, "tokenbroker_client_ready")]
        if it is not leader and shown:
            yield f"{it.name} does not lead and shows {shown}"
    known = {it.client.id for it in world.kube.resources.values()}
    healthy = {
        it.client.id
        for it in world.kube.resources.values()
        if not it.deleting and all(world.truth.in_order(it, one) for one in it.client.grants)
    }
    for it in world.replicas.values():
        failing = {key for key in it.reconciler.queue._failures if key in healthy or key not in known}
        if failing:
            yield f"{it.name} fails to visit {failing}"
        if world.kube.told_to_lead.get(it.name, False) is not it.leading:
            yield f"{it.name} is told of as leading: {not it.leading}"
        for queue in (it.shared.board.queue, it.shared.tokens.queue, it.left.queue, it.news.queue):
            if queue._failures:
                yield f"{it.name} fails to do {queue.name} {queue._failures}"
            oldest = queue._waiting[Lane.NORMAL].first()
            if oldest is not None and world.kube.loop.time() - oldest[0] > TIDIED_WITHIN:
                yield f"{it.name} does not do {queue.name}"


def _left_behind(world: World) -> Iterator[str]:
    """Return anchors for which there is no reason."""
    wanted = _wanted(world)
    for secret in world.kube.secrets.values():
        if secret.name in wanted or _excused(world, secret):
            continue
        yield f"the anchor {secret.kind} {secret.name} ({secret.uid}) is left behind"


def _wanted(world: World) -> set[str]:
    names: set[str] = set()
    for it in world.kube.resources.values():
        for one in it.client.grants:
            key = key_of(it.client, one)
            over = world.truth.told_reasons(key, it.client.id)
            if it.valid and (over or (world.truth.found_reasons(key) and not _unlooked(world, key))):
                continue
            names |= {which(it.client.uid, one).name for which in (trial_anchor, grant_anchor)}
            names |= _in_vault(world, it, one) if one.vault is not None else set()
    return names


def _in_vault(world: World, it: Resource, grant: Grant) -> set[str]:
    top = vault_anchor(it.client.uid, grant)
    root = world.kube.secrets.get(top.name)
    entry = world.vault.entries.get(path_of(it.client.id, grant.name))
    names = {top.name}
    if root is None or entry is None or entry.label is None:
        return names
    slack = RENEW_BEFORE[grant.name] + READING_SLACK.total_seconds()
    if not world.kube.clock.set_at > 0:
        assert all((one.until - world.kube.now()).total_seconds() <= slack for one in entry.label.retired)
    names |= {anchor.name for anchor in entry.label.anchors}
    names |= {left.name for it in world.replicas.values() for left in it.left.queue._planned[Lane.NORMAL]}
    return names | {version_anchor(top, Anchor(root.name, root.uid), len(entry.versions) + 1).name}


def _excused(world: World, secret: Secret) -> bool:
    """Tell whether an anchor may be there: what hangs below another one goes with it, if nobody needs it."""
    top = world.kube.top(secret.uid)
    keep = {it.client.uid for it in world.kube.resources.values() if not it.valid and not it.client.suspended}
    if _made_late(world, secret.uid) or world.kube.kinds[top][0] in _names_of(world.kube.nobodys | keep, world):
        return True  # nobody had the right to end it, or what is not valid keeps what it has
    if secret.kind is AnchorKind.BUCKET:
        return _is_there(world, top) and world.kube.monotonic() - secret.made_at < BUCKET_SECONDS * (BUCKETS_IN_USE + 2)
    if secret.kind is AnchorKind.TOKEN:
        handed_out = any(world.kube.tokens[held.value].anchor_uid == secret.uid for held in world.held)
        died = secret.maker not in {it.name for it in world.replicas.values()}
        return _is_there(world, top) and (handed_out or died)
    if secret.kind is AnchorKind.VERSION:
        died = secret.maker not in {it.name for it in world.replicas.values()}
        return _is_there(world, top) and (died or _label_was_lost(world, top))
    return False


def _names_of(uids: set[str], world: World) -> set[str]:
    of = [(key.uid, FormerGrant(key.grant, key.account)) for key in world.truth.past if key.uid in uids]
    return {which(uid, one).name for uid, one in of for which in (trial_anchor, grant_anchor, vault_anchor)}


def _label_was_lost(world: World, top: str) -> bool:
    """Tell whether somebody took the label of a copy away, or wrote an old one late: it told of these anchors."""
    name, _ = world.kube.kinds[top]
    paths = {
        path_of(past.client, key.grant)
        for key, past in world.truth.past.items()
        if vault_anchor(key.uid, FormerGrant(key.grant, key.account)).name == name
    }
    return not paths.isdisjoint(world.unlabelled | world.audit.labelled_late)


def _is_there(world: World, uid: str) -> bool:
    return any(secret.uid == uid for secret in world.kube.secrets.values())


def _samples(it: Replica, name: str) -> list[Sample]:
    found = it.metrics.registry.restricted_registry([name]).collect()
    return [sample for family in found for sample in family.samples]


def _value(it: Replica, name: str, **labels: str) -> float | None:
    return next((sample.value for sample in _samples(it, name) if sample.labels == labels), None)

"""Writes to Vault that no check-and-set holds back: what one that comes late does, and how it is made good."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from broker.errors import BrokerError
from broker.model.audit_record import Origin
from broker.model.vault_path import CopyKey
from broker.services.rotation.copy import READING_SLACK
from tests.support.rotation import KEY, PLACE, RENEW_BEFORE, Power, World, client

PATH = PLACE.path(KEY)


class Meanwhile(Power):
    """Lets something happen once, right after an anchor was deleted, or another call."""

    def __init__(self, what: Callable[[], None], call: str = "delete") -> None:
        super().__init__()
        self._what = [what]
        self._call = call

    def after(self, call: str) -> None:
        """Let it happen."""
        if call == self._call and self._what:
            self._what.pop()()


@pytest_asyncio.fixture
async def world() -> World:
    """Return a world in which there is a copy."""
    world = World()
    world.registry.put(client())
    await world.visit()
    return world


async def test_a_copy_that_is_written_while_its_tokens_are_ended_is_not_removed_as_it_was_seen(world: World) -> None:
    """Another leader wrote it, for a client that was made again; the next look leaves it alone."""
    del world.registry.known[KEY.client]
    entry = world.vault.entries[PATH]
    assert entry.label is not None
    of_another = replace(entry.label, client_uid="uid-2", server="https://api.other.example")
    world.cluster.power = Meanwhile(lambda: setattr(entry, "label", of_another))
    with pytest.raises(BrokerError, match="vault_write_conflict"):
        await world.visit()
    await world.visit()

    assert world.vault.entries[PATH].label == of_another


async def test_a_version_that_came_while_a_copy_was_removed_is_removed_with_its_anchor(world: World) -> None:
    """By the next look: another replica delivered it."""
    del world.registry.known[KEY.client]
    entry = world.vault.entries[PATH]
    assert entry.label is not None
    newer = replace(entry.label, version=2)
    world.cluster.power = Meanwhile(lambda: setattr(entry, "label", newer))
    with pytest.raises(BrokerError, match="vault_write_conflict"):
        await world.visit()
    await world.visit()

    assert not world.vault.entries
    assert not world.cluster.anchors


async def test_whoever_loses_the_lead_while_it_ends_the_tokens_of_a_copy_does_not_remove_it(world: World) -> None:
    """The next leader does."""
    del world.registry.known[KEY.client]
    world.cluster.power = Meanwhile(lambda: setattr(world.cluster, "leading", False))
    with pytest.raises(BrokerError, match="vault_write_conflict"):
        await world.visit()
    kept = PATH in world.vault.entries
    world.cluster.leading = True
    await world.restart().visit(KEY)

    assert kept
    assert not world.vault.entries


async def test_whoever_loses_the_lead_while_it_looks_at_a_copy_ends_nothing(world: World) -> None:
    """The owner may have wanted the copy again meanwhile, and the next leader keeps it."""
    token = world.token()
    del world.registry.known[KEY.client]
    world.cluster.power = world.power = Meanwhile(lambda: setattr(world.cluster, "leading", False), "inspect")
    with pytest.raises(BrokerError, match="vault_write_conflict"):
        await world.visit()
    world.registry.put(client())

    assert token is not None
    assert token == world.token()
    assert world.cluster.accepts(token)


async def test_a_removal_that_comes_late_is_made_good_at_the_next_look(world: World) -> None:
    """Of what the next leader has written since: it writes it again, as if there had been nothing."""
    await world.vault.remove(PATH)
    await world.visit()
    token, entry = world.token(), world.vault.entries[PATH]

    assert token is not None
    assert world.cluster.accepts(token)
    assert entry.label is not None
    assert (entry.label.version, len(entry.versions)) == (1, 1)


async def test_a_label_that_comes_late_is_made_good_at_the_next_look(world: World) -> None:
    """It describes a version that was replaced: so nobody knows how long the current one lives, and it is replaced.

    Readers who hold either of them are served until they look again, and no anchor is left.
    """
    before = world.vault.entries[PATH].label
    assert before is not None
    await world.rotator.deliver(client(), KEY.grant, Origin("r"))
    held = world.token()
    await world.vault.label(PATH, before)
    await world.restart().visit(KEY)
    entry, now = world.vault.entries[PATH], world.token()
    broken = world.broken_readers()
    world.clock.pass_(RENEW_BEFORE + READING_SLACK.total_seconds() + 1)
    await world.visit()

    assert held is not None
    assert now != held
    assert entry.label is not None
    assert entry.label.version == len(entry.versions) == 3
    assert broken == []
    assert world.cluster.versions == [entry.label.anchor.name]


async def test_a_label_that_comes_after_its_copy_was_removed_is_swept_away(world: World) -> None:
    """It leaves a path without data, which nobody takes for a copy."""
    label = world.vault.entries[PATH].label
    assert label is not None
    del world.registry.known[KEY.client]
    await world.visit()
    await world.vault.label(PATH, label)
    found: list[CopyKey] = []
    await world.sweeper(found.append).visit("prod")
    await world.visit()

    assert found == [KEY]
    assert not world.vault.entries

"""The broker's finalizer is put on and taken off, and nobody else's gets lost."""

from dataclasses import replace
from pathlib import Path

import pytest

from broker.errors import BrokerError, Reason
from broker.kube.finalizers import FINALIZER, KubeFinalizers
from broker.ports import Registration
from tests.support.asked import Heard, answered, body, document, line, status
from tests.support.rotation import KEY
from tests.support.scripted import Reply

OTHERS = ("kubernetes.io/theirs", "foregroundDeletion")
REGISTRATION = Registration(KEY.client, "uid-1", 1, None, None, {}, finalizers=OTHERS, resource_version="7")
HELD = replace(REGISTRATION, finalizers=(OTHERS[0], FINALIZER, OTHERS[1]))
PATH = "/apis/tokenbroker.dev/v1alpha1/namespaces/shop/tokenclients/reporter"
CHANGED = {"metadata": {"resourceVersion": "8"}}


async def test_finalizer_is_put_on_the_very_resource_that_was_seen(tmp_path: Path) -> None:
    """By UID and version: with a version that is not the last one the API server refuses, and no finalizer is lost."""
    heard = Heard()
    async with answered(tmp_path, document(CHANGED)) as (session, server):
        now = await KubeFinalizers(session, heard.written).put(REGISTRATION)

    assert heard.of == [(REGISTRATION, now)]
    assert now == replace(REGISTRATION, finalizers=(*OTHERS, FINALIZER), resource_version="8")
    assert line(server.requests[0]) == f"PATCH {PATH}"
    assert b"\r\nContent-Type: application/merge-patch+json\r\n" in server.requests[0]
    assert body(server.requests[0]) == {
        "metadata": {"uid": "uid-1", "resourceVersion": "7", "finalizers": [*OTHERS, FINALIZER]}
    }


async def test_only_the_brokers_own_is_taken_off(tmp_path: Path) -> None:
    """Others wait for something else: their finalizers stay, in their order."""
    heard = Heard()
    async with answered(tmp_path, document(CHANGED)) as (session, server):
        await KubeFinalizers(session, heard.written).release(HELD)

    assert heard.of == []

    assert body(server.requests[0]) == {
        "metadata": {"uid": "uid-1", "resourceVersion": "7", "finalizers": list(OTHERS)}
    }


async def test_nothing_is_asked_where_nothing_would_change(tmp_path: Path) -> None:
    """On already, off already, or no resource that could have one: a client of a directory."""
    from_file = replace(REGISTRATION, resource_version="")
    async with answered(tmp_path) as (session, server):
        finalizers = KubeFinalizers(session, Heard().written)
        await finalizers.release(REGISTRATION)
        assert await finalizers.put(HELD) is HELD
        assert await finalizers.put(from_file) is from_file

    assert server.requests == []


async def test_resource_that_is_gone_needs_no_finalizer(tmp_path: Path) -> None:
    """Somebody else took it off in between: there is nothing left to do, and nothing was put on."""
    heard = Heard()
    async with answered(tmp_path, status(404), status(404)) as (session, server):
        finalizers = KubeFinalizers(session, heard.written)
        await finalizers.release(HELD)
        assert await finalizers.put(REGISTRATION) == REGISTRATION

    assert heard.of == []
    assert len(server.requests) == 2


@pytest.mark.parametrize("held", [True, False], ids=["release", "put"])
@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (status(409, "the object has been modified"), "has been modified"),
        (status(403, "not this"), "not this"),
        (status(422, "no"), "no"),
        (status(500, "etcd"), "etcd"),
    ],
    ids=["409", "403", "422", "500"],
)
async def test_what_was_not_changed_is_a_fault(tmp_path: Path, reply: Reply, said: str, *, held: bool) -> None:
    """Also where somebody else changed the resource since it was seen: the visit is made again with what is there."""
    async with answered(tmp_path, reply) as (session, _):
        finalizers = KubeFinalizers(session, Heard().written)
        with pytest.raises(BrokerError) as refused:
            await (finalizers.release(HELD) if held else finalizers.put(REGISTRATION))

    assert refused.value.reason is Reason.KUBERNETES_UNAVAILABLE
    assert said in refused.value.operator_detail

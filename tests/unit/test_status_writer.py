"""A status is replaced, of the very resource that was seen, and only as it was seen."""

from dataclasses import replace
from pathlib import Path

import pytest

from broker.clock import SystemClock
from broker.config import Config, LeaseConfig, RegistryConfig
from broker.errors import BrokerError, Reason
from broker.kube.registry import WatchedRegistry
from broker.kube.status import KubeStatusWriter
from broker.metrics.counted import Metrics
from broker.ports import Registration
from broker.registries import registered
from tests.support.asked import Heard, answered, body, document, line, status
from tests.support.rotation import KEY

BEFORE = {"grants": [], "observedGeneration": 1}
REGISTRATION = Registration(KEY.client, "uid-1", 1, None, None, BEFORE, resource_version="7")
NOW = {"observedGeneration": 2, "conditions": []}
WRITTEN = {"metadata": {"resourceVersion": "8"}, "status": NOW}


async def test_what_is_not_in_a_status_any_more_is_taken_out(tmp_path: Path) -> None:
    """A merge patch would keep it."""
    async with answered(tmp_path, document(WRITTEN)) as (session, server):
        assert await KubeStatusWriter(session, Heard().written).write(REGISTRATION, NOW)

    assert line(server.requests[0]) == (
        "PATCH /apis/tokenbroker.dev/v1alpha1/namespaces/shop/tokenclients/reporter/status"
    )
    assert b"\r\nContent-Type: application/merge-patch+json\r\n" in server.requests[0]
    assert body(server.requests[0])["status"] == {"grants": None, **NOW}


async def test_a_status_names_the_resource_and_the_version_that_it_goes_over(tmp_path: Path) -> None:
    """It is written over nothing that was not seen: no namesake, and no other leader's word."""
    async with answered(tmp_path, document(WRITTEN)) as (session, server):
        await KubeStatusWriter(session, Heard().written).write(REGISTRATION, NOW)

    assert body(server.requests[0])["metadata"] == {"uid": "uid-1", "resourceVersion": "7"}


async def test_what_was_written_is_told_of_before_the_watch_brings_it(tmp_path: Path) -> None:
    """Else the next status would name a version that is not there any more."""
    heard = Heard()
    async with answered(tmp_path, document(WRITTEN)) as (session, _):
        await KubeStatusWriter(session, heard.written).write(REGISTRATION, NOW)

    assert heard.of == [(REGISTRATION, replace(REGISTRATION, status=NOW, resource_version="8"))]


@pytest.mark.parametrize("code", [404, 409])
async def test_a_status_of_what_has_changed_or_is_gone_is_not_written(tmp_path: Path, code: int) -> None:
    """That is no failure: what is there now comes by the watch."""
    heard = Heard()
    async with answered(tmp_path, status(code)) as (session, server):
        written = await KubeStatusWriter(session, heard.written).write(replace(REGISTRATION, status={}), NOW)

    assert written is False
    assert heard.of == []
    assert body(server.requests[0])["status"] == NOW


@pytest.mark.parametrize("code", [403, 422, 500])
async def test_a_status_that_was_refused_is_a_fault(tmp_path: Path, code: int) -> None:
    """In the API server's words."""
    async with answered(tmp_path, status(code, "words of it")) as (session, _):
        with pytest.raises(BrokerError, match="kubernetes_unavailable") as refused:
            await KubeStatusWriter(session, Heard().written).write(REGISTRATION, NOW)

    assert refused.value.reason is Reason.KUBERNETES_UNAVAILABLE
    assert "words of it" in refused.value.operator_detail


@pytest.mark.parametrize("answer", [{}, {"metadata": {}}, {"metadata": {"resourceVersion": "8"}}, []])
async def test_an_answer_that_is_not_complete_is_a_fault(tmp_path: Path, answer: object) -> None:
    """Whatever stands before the API server."""
    async with answered(tmp_path, document(answer)) as (session, _):
        with pytest.raises(BrokerError, match="kubernetes_unavailable"):
            await KubeStatusWriter(session, Heard().written).write(REGISTRATION, NOW)


async def test_the_registry_hears_of_what_was_written(tmp_path: Path) -> None:
    """It is the one that the next status is compared with."""
    config = Config.model_construct(
        namespace="tokenbroker", lease=LeaseConfig(), registry=RegistryConfig.model_construct(directory=None)
    )
    async with answered(tmp_path, document(WRITTEN)) as (session, _):
        made = registered(config, session, SystemClock(), Metrics())
        assert isinstance(made.registry, WatchedRegistry)
        made.registry.heard()
        made.registry.put(REGISTRATION)
        await made.statuses.write(REGISTRATION, NOW)

    assert made.registry.get(KEY.client) == replace(REGISTRATION, status=NOW, resource_version="8")

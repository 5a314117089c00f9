"""A status is replaced, of the very resource that was seen."""

from dataclasses import replace
from pathlib import Path

import pytest

from broker.errors import BrokerError, Reason
from broker.kube.status import KubeStatusWriter
from broker.ports import Registration
from tests.support.asked import answered, body, document, line, status
from tests.support.rotation import KEY

BEFORE = {"grants": [], "observedGeneration": 1}
REGISTRATION = Registration(KEY.client, "uid-1", 1, None, None, BEFORE, resource_version="7")
NOW = {"observedGeneration": 2, "conditions": []}


async def test_what_is_not_in_a_status_any_more_is_taken_out(tmp_path: Path) -> None:
    """A merge patch would keep it. Another one's change in between does not matter: the UID is all that is named."""
    async with answered(tmp_path, document({})) as (session, server):
        await KubeStatusWriter(session).write(REGISTRATION, NOW)

    assert line(server.requests[0]) == (
        "PATCH /apis/tokenbroker.dev/v1alpha1/namespaces/shop/tokenclients/reporter/status"
    )
    assert b"\r\nContent-Type: application/merge-patch+json\r\n" in server.requests[0]
    assert body(server.requests[0]) == {"metadata": {"uid": "uid-1"}, "status": {"grants": None, **NOW}}


async def test_a_status_that_must_not_be_overtaken_names_its_version(tmp_path: Path) -> None:
    """What tokens are found again by is written over nothing that was not seen."""
    async with answered(tmp_path, document({})) as (session, server):
        await KubeStatusWriter(session).write(REGISTRATION, NOW, exactly=True)

    assert body(server.requests[0])["metadata"] == {"uid": "uid-1", "resourceVersion": "7"}


@pytest.mark.parametrize(("code", "exactly"), [(404, False), (409, False), (404, True)])
async def test_a_client_that_went_needs_no_status(tmp_path: Path, code: int, *, exactly: bool) -> None:
    """Deleted, or made again under the same name."""
    async with answered(tmp_path, status(code)) as (session, server):
        await KubeStatusWriter(session).write(replace(REGISTRATION, status={}), NOW, exactly=exactly)

    assert body(server.requests[0])["status"] == NOW


@pytest.mark.parametrize(("code", "exactly"), [(409, True), (403, False), (422, True), (500, False)])
async def test_a_status_that_was_not_written_is_a_fault(tmp_path: Path, code: int, *, exactly: bool) -> None:
    """Where it has to be exact, also because somebody else was faster."""
    async with answered(tmp_path, status(code, "words of it")) as (session, _):
        with pytest.raises(BrokerError, match="kubernetes_unavailable") as refused:
            await KubeStatusWriter(session).write(REGISTRATION, NOW, exactly=exactly)

    assert refused.value.reason is Reason.KUBERNETES_UNAVAILABLE
    assert "words of it" in refused.value.operator_detail

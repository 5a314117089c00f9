"""What counts as a refusal by our policies, and what does not."""

import json
from pathlib import Path

import pytest

from broker.errors import BrokerError, Reason
from broker.kube.canary import KubeCanary
from broker.kube.session import KubeSession
from broker.model.policies import SECRETS, TOKENS
from tests.support.certificates import Authority
from tests.support.scripted import Reply, answer, says, scripted


def session(folder: Path, url: str) -> KubeSession:
    """Return a session with a scripted API server."""
    token = folder / "token"
    token.write_text("x")
    return KubeSession(url, Authority.create(folder, "test").file, token, 5)


def status(code: int, message: str) -> Reply:
    """Say a Status."""
    return says(answer(code, json.dumps({"kind": "Status", "message": message}).encode()))


def refused(policy: str) -> Reply:
    """Say what the API server says for a policy."""
    return status(422, f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: no")


async def missing(folder: Path, *replies: Reply) -> tuple[tuple[str, ...], list[bytes]]:
    """Return what the canary says to an API server that answers so, and what it asked."""
    async with scripted(*replies) as server, session(folder, server.url) as open_session:
        return await KubeCanary(open_session, "tokenbroker").missing(), server.requests


async def test_what_both_policies_refuse_is_tried_without_effect(tmp_path: Path) -> None:
    """A Secret that is no anchor, and a token of the canary's account, both on a dry run."""
    found, asked = await missing(tmp_path, refused(SECRETS), refused(TOKENS))

    assert found == ()
    assert asked[0].startswith(b"POST /api/v1/namespaces/tokenbroker/secrets?dryRun=All ")
    assert b'"type":"Opaque"' in asked[0]
    token_path = b"POST /api/v1/namespaces/tokenbroker/serviceaccounts/tokenbroker-canary/token?dryRun=All "
    assert asked[1].startswith(token_path)
    assert b'"kind":"TokenRequest"' in asked[1]


@pytest.mark.parametrize(
    "reply",
    [
        says(answer(201)),
        status(409, "secrets tokenbroker-canary already exists"),
        status(422, "ValidatingAdmissionPolicy 'somebody-elses' denied request"),
        refused(TOKENS),
    ],
    ids=["passed", "passed as far as an object of that name", "another policy", "our other policy"],
)
async def test_what_is_not_refused_by_the_policy_itself_is_missing(tmp_path: Path, reply: Reply) -> None:
    """Whatever else the API server says: our policy is asked first."""
    found, _ = await missing(tmp_path, reply, refused(TOKENS))

    assert found == (SECRETS,)


async def test_both_may_be_missing(tmp_path: Path) -> None:
    """Each is named."""
    found, _ = await missing(tmp_path, says(answer(201)), says(answer(201)))

    assert found == (SECRETS, TOKENS)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (403, Reason.BROKER_NOT_AUTHORIZED),
        (404, Reason.BROKER_NOT_AUTHORIZED),
        (500, Reason.KUBERNETES_UNAVAILABLE),
        (429, Reason.KUBERNETES_UNAVAILABLE),
    ],
)
async def test_what_says_nothing_about_policies_is_no_finding(tmp_path: Path, code: int, reason: Reason) -> None:
    """The canary's account or Role is not there, or the API server has other troubles."""
    with pytest.raises(BrokerError) as unknown:
        await missing(tmp_path, *[status(code, "it cannot")] * 4)

    assert unknown.value.reason is reason
    assert "it cannot" in unknown.value.operator_detail or str(code) in unknown.value.operator_detail

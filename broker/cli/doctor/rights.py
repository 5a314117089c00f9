"""Why an account is refused (403): what the authorizer says, and the Role that would mend it."""

from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from broker.cli.cluster import Answer, Cluster
from broker.cli.doctor.actions import Wish, WrittenWish
from broker.cli.doctor.findings import Finding, ok, problem, unknown
from broker.cli.doctor.objects import message
from broker.cli.errors import usage
from broker.cli.manifests import Manifest
from broker.model.account import account_groups, account_user
from broker.model.sensitive import Sensitive

_AUTHORIZATION = "/apis/authorization.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The authorizer's answer. ``refusal`` is why the user got none."""

    allowed: bool = False
    reason: str = ""
    error: str = ""
    refusal: str = ""


def subject(namespace: str, account: str) -> Manifest:
    """Return an account as the authorizer knows it."""
    return {"user": account_user(namespace, account), "groups": list(account_groups(namespace))}


async def may(cluster: Cluster, namespace: str, account: str, wish: Wish) -> Verdict:
    """Ask the authorizer about an account; who may not do so for the whole cluster asks for the namespace."""
    spec = subject(namespace, account) | wish.attributes()
    verdict = _verdict(await _review(cluster, "SubjectAccessReview", spec))
    if verdict.refusal and wish.inside:  # what the ClusterRole admin may
        return _verdict(await _review(cluster, "LocalSubjectAccessReview", spec, wish.inside))
    return verdict


async def may_itself(cluster: Cluster, token: Sensitive, wish: Wish) -> Verdict:
    """Ask the authorizer with the account's own token (SelfSubjectAccessReview), which everybody may."""
    async with cluster.bearer(token) as bearer:
        return _verdict(await _review(bearer, "SelfSubjectAccessReview", wish.attributes()))


async def _review(cluster: Cluster, kind: str, spec: Manifest, namespace: str = "") -> Answer:
    metadata = {"namespace": namespace} if namespace else {}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec}
    inside = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return await cluster.ask("POST", f"{_AUTHORIZATION}{inside}/{kind.lower()}s", body)


def _verdict(answer: Answer) -> Verdict:
    if answer.status != HTTPStatus.CREATED:
        return Verdict(refusal=message(answer))
    status = answer.document.get("status", {})
    reason, error = str(status.get("reason", "")), str(status.get("evaluationError", ""))
    return Verdict(bool(status.get("allowed")), reason, error)


def judge(identity: str, namespace: str, account: str, wish: Wish, verdict: Verdict) -> Finding:
    """Return whether an account may do something, and what would mend it where it may not."""
    who = f"the account {namespace}/{account}"
    if verdict.refusal:
        return unknown(identity, f"you may not ask what {who} may do ({verdict.refusal})")
    if verdict.allowed:
        return ok(identity, f"{who} may {wish} ({verdict.reason or 'no reason given'})")
    said = "; ".join(filter(None, (verdict.reason, verdict.error))) or "no rule allows it"
    text = f"{who} may not {wish}: 403 (the authorizer says: {said})"
    return problem(identity, text, wish.mend(namespace, account))


async def understood(cluster: Cluster, written: WrittenWish) -> Wish:
    """Return what was asked about, in the cluster's own words. Raises CommandError with the nearest right one."""
    namespace = cluster.namespace if written.namespace is None else written.namespace
    try:
        return Wish(written.written.resolved(await cluster.catalogue()), namespace)
    except ValueError as error:
        raise usage(f"--can: {error}") from None

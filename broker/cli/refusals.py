"""What the API server's refusals mean, in one sentence that says whom to ask. Pure."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from broker.cli.errors import CommandError, ExitCode, RefusedError
from broker.cli.resources import Kind

_USER = re.compile(r'[Uu]ser "([^"]+)"')
_POLICY = re.compile(r"ValidatingAdmissionPolicy '([^']+)'.* denied request: (.+)", re.DOTALL)
_REGISTRATION_POLICY = "tokenbroker-registration"
_BUSY = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was tried. ``namespace`` is None for the whole cluster."""

    verb: str
    kind: Kind
    namespace: str | None
    name: str = ""

    @property
    def things(self) -> str:
        """What was asked for, as a sentence names it."""
        where = f" in namespace {self.namespace}" if self.namespace is not None else " in the whole cluster"
        return f"{self.kind.value.kind}s{where}"

    @property
    def thing(self) -> str:
        """The one object."""
        return f"{self.kind.value.kind} {self.name}" if self.name else self.things


def explain(status: int, message: str, attempt: Attempt) -> CommandError:
    """Return the error for an answer of the API server that is not a success."""
    said = f"(Kubernetes says: {_one_line(message)})"
    if status == HTTPStatus.UNAUTHORIZED:
        text = f"the API server does not accept the kubeconfig's credentials {said}: log in again."
        return CommandError(text, ExitCode.UNAUTHENTICATED)
    if status == HTTPStatus.FORBIDDEN or _POLICY.search(message):
        return RefusedError(_forbidden(message, said, attempt))
    if status == HTTPStatus.NOT_FOUND:
        return RefusedError(_missing(message, said, attempt))
    if status == HTTPStatus.CONFLICT and attempt.verb == "patch":
        return RefusedError(f"somebody changed the {attempt.thing} at the same time {said}: look, and try again.")
    if status in _BUSY:
        return CommandError(f"the API server cannot serve at the moment {said}: try later.", ExitCode.UNAVAILABLE)
    return RefusedError(f"the API server refuses to {attempt.verb} the {attempt.thing} {said}.")


def discovered(status: int, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a discovery document. Raises CommandError where the API server does not hand it out."""
    if status == HTTPStatus.OK:
        return document
    said = f"(Kubernetes says: {_one_line(str(document.get('message')))})"
    text = (
        f"the API server does not say what it serves {said}: ask a cluster admin for the ClusterRole system:discovery."
    )
    code = {HTTPStatus.UNAUTHORIZED: ExitCode.UNAUTHENTICATED, HTTPStatus.FORBIDDEN: ExitCode.REFUSED}
    raise CommandError(text, code.get(HTTPStatus(status), ExitCode.UNAVAILABLE))


def _denied(policy: str, why: str, attempt: Attempt) -> str:
    """Tell what an admission policy refuses; ours on registrations holds their writers to what they could mint."""
    if policy != _REGISTRATION_POLICY:
        return f"the cluster's policy {policy} refuses the {attempt.thing}: {why}. Ask a cluster admin about it."
    return (
        f"the cluster's policy on registrations refuses the {attempt.thing}: {why}. Whoever registers a client has to "
        "be allowed to make tokens of its account: ask somebody who is to run this command, or a cluster admin for "
        f"that right: kubectl create rolebinding tokenbroker-owner -n {attempt.namespace} --clusterrole=admin "
        "--user=<your user name>"
    )


def _forbidden(message: str, said: str, attempt: Attempt) -> str:
    denied = _POLICY.search(message)
    if denied:
        return _denied(denied[1], _one_line(denied[2]), attempt)
    if "not currently held" in message:
        return (
            f"you may give only rights that you hold yourself {said}: ask somebody who holds them, "
            "such as a cluster admin, to run this command."
        )
    if f'cannot {attempt.verb} resource "{attempt.kind.value.plural}"' not in message:
        return f"you may not {attempt.verb} the {attempt.thing} {said}: ask a cluster admin about it."
    return (
        f"you may not {attempt.verb} {attempt.things} {said}; "
        f"ask a cluster admin to run this command, or to let you: {_remedy(message, attempt)}"
    )


def _remedy(message: str, attempt: Attempt) -> str:
    match = _USER.search(message)
    user = shlex.quote(match[1]) if match else "<your user name>"
    resource = ".".join(filter(None, (attempt.kind.value.plural, attempt.kind.value.group)))
    if attempt.namespace is None:
        name = f"tokenbroker-{attempt.verb}"
        return (
            f"kubectl create clusterrole {name} --verb={attempt.verb} --resource={resource} && "
            f"kubectl create clusterrolebinding {name} --clusterrole={name} --user={user}"
        )
    binding = f"kubectl create rolebinding tokenbroker-owner -n {attempt.namespace}"
    return f"{binding} --clusterrole=admin --user={user}"


def _missing(message: str, said: str, attempt: Attempt) -> str:
    if attempt.kind is Kind.TOKEN_CLIENT and "could not find the requested resource" in message:
        return f"this cluster has no TokenClients {said}: ask its admin to install tokenbroker."
    return f"the API server cannot {attempt.verb} the {attempt.thing}, for something is missing {said}."


def _one_line(message: str) -> str:
    return " ".join(message.split())[:600]

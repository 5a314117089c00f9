"""What refusals of the API server are told as."""

import pytest

from broker.cli.errors import CommandError, ExitCode
from broker.cli.refusals import Attempt, discovered, explain
from broker.cli.resources import Kind

BIND = Attempt("create", Kind.ROLE_BINDING, "shop", "tokenbroker-mint-web")
FORBIDDEN = (
    'rolebindings.rbac.authorization.k8s.io is forbidden: User "jane; rm -rf" cannot create resource "rolebindings" '
    'in API group "rbac.authorization.k8s.io" in the namespace "shop"'
)
LIST = 'tokenclients.tokenbroker.dev is forbidden: User "jane" cannot list resource "tokenclients" in API group'


def test_missing_right_names_the_line_to_ask_for() -> None:
    """The user's name is quoted for the shell: it may hold anything."""
    error = explain(403, FORBIDDEN, BIND)

    assert str(error).startswith("you may not create RoleBindings in namespace shop (Kubernetes says: rolebindings.")
    assert str(error).endswith(
        "kubectl create rolebinding tokenbroker-owner -n shop --clusterrole=admin --user='jane; rm -rf'"
    )
    assert error.code == ExitCode.REFUSED


def test_a_policy_that_refuses_is_named() -> None:
    """Ours on registrations says which right is missing, whatever the status; another one is told as it is."""
    said = (
        "tokenclients.tokenbroker.dev \"web\" is forbidden: ValidatingAdmissionPolicy '{0}' with binding '{0}' "
        "denied request: you may not\nmint for web"
    )
    attempt = Attempt("create", Kind.TOKEN_CLIENT, "shop", "web")
    ours = {str(explain(status, said.format("tokenbroker-registration"), attempt)) for status in (403, 422)}
    other = str(explain(422, said.format("no-web"), attempt))

    (text,) = ours
    assert text.startswith(
        "the cluster's policy on registrations refuses the TokenClient web: you may not mint for web."
    )
    assert "kubectl create rolebinding tokenbroker-owner -n shop --clusterrole=admin" in text
    assert other == (
        "the cluster's policy no-web refuses the TokenClient web: you may not mint for web. "
        "Ask a cluster admin about it."
    )


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, ExitCode.UNAUTHENTICATED),
        (403, ExitCode.REFUSED),
        (503, ExitCode.UNAVAILABLE),
        (406, ExitCode.UNAVAILABLE),
    ],
)
def test_discovery_that_is_refused_says_so(status: int, code: ExitCode) -> None:
    """Without it no rule can be checked."""
    with pytest.raises(CommandError, match="system:discovery") as refused:
        discovered(status, {"message": "no"})

    assert refused.value.code == code
    assert discovered(200, {"kind": "x"}) == {"kind": "x"}


def test_missing_right_on_the_whole_cluster_needs_a_cluster_role() -> None:
    """Listing all namespaces is a right of its own, and no more than that is asked for."""
    text = str(explain(403, LIST, Attempt("list", Kind.TOKEN_CLIENT, None)))

    assert "--verb=list --resource=tokenclients.tokenbroker.dev" in text
    assert "--clusterrole=admin" not in text


@pytest.mark.parametrize(
    ("status", "message", "attempt", "words", "code"),
    [
        (401, "Unauthorized", BIND, "log in again", ExitCode.UNAUTHENTICATED),
        (403, "is attempting to grant RBAC permissions not currently held", BIND, "hold yourself", ExitCode.REFUSED),
        (403, "namespace is being terminated", BIND, "you may not create the RoleBinding", ExitCode.REFUSED),
        (404, 'namespaces "shop" not found', BIND, 'namespaces "shop" not found', ExitCode.REFUSED),
        (
            404,
            "the server could not find the requested resource",
            Attempt("list", Kind.TOKEN_CLIENT, "shop"),
            "has no TokenClients",
            ExitCode.REFUSED,
        ),
        (409, "conflict", Attempt("patch", Kind.TOKEN_CLIENT, "shop", "web"), "at the same time", ExitCode.REFUSED),
        (422, "spec is invalid", BIND, "spec is invalid", ExitCode.REFUSED),
        (429, "slow down", BIND, "try later", ExitCode.UNAVAILABLE),
        (503, "away", BIND, "try later", ExitCode.UNAVAILABLE),
    ],
)
def test_each_refusal_says_what_to_do(status: int, message: str, attempt: Attempt, words: str, code: ExitCode) -> None:
    """Kubernetes' own words are in it, on one line, with an exit code for scripts."""
    error = explain(status, message, attempt)

    assert words in str(error)
    assert error.code == code

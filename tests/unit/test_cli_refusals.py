"""What refusals of the API server are told as."""

import pytest

from broker.cli.errors import ExitCode
from broker.cli.refusals import Attempt, explain
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

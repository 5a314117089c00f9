"""The objects that register a client, and what is refused before any of them is made."""

from dataclasses import replace
from typing import Any

import pytest

from broker.cli.check.checks import check
from broker.cli.errors import CommandError, ExitCode
from broker.cli.manifests import Account, BrokerAccount, NewClient, NewGrant, Rights, Vault, manifests
from broker.cli.output import to_yaml
from broker.directory.resources import read_file
from broker.model.access import PolicyRule
from broker.model.client import ClientId, Expect, Revocation

DIGEST = "sha256:" + "0" * 64
GRANT = NewGrant("default", "15m", "1h", (), None)
PLAIN = NewClient(
    id=ClientId("shop", "web"),
    owner="",
    account=Account("web", create=False),
    rights=Rights((), ()),
    grant=GRANT,
    broker=BrokerAccount("tokenbroker", "tokenbroker"),
    digest=DIGEST,
)
FULL = replace(
    PLAIN,
    owner="team",
    account=Account("web", create=True),
    rights=Rights(
        ("view",),
        (PolicyRule(("get",), ("",), ("pods",)),),
        ("tokenbroker-prometheus",),
        (PolicyRule(("get",), ("",), ("nodes",)), PolicyRule(("get",), urls=("/metrics",))),
    ),
    grant=NewGrant(
        "default",
        "10m",
        "2h",
        ("vault", "other"),
        Vault("12h", "4h"),
        Revocation.TOKEN,
        Expect(("list pods",), ("get secrets",)),
    ),
    rate={"perMinute": 60, "burst": 10},
)


def _named(new: NewClient) -> list[str]:
    return [f"{it['kind']} {it['metadata']['name']}" for it in manifests(new)]


def _of(new: NewClient, title: str) -> dict[str, Any]:
    return next(it for it in manifests(new) if f"{it['kind']} {it['metadata']['name']}" == title)


def test_token_client_comes_last() -> None:
    """A client is registered when all that it needs is there."""
    assert _named(FULL) == [
        "ServiceAccount web",
        "Role tokenbroker-access-web",
        "RoleBinding tokenbroker-access-web",
        "RoleBinding tokenbroker-access-web.view",
        "ClusterRole tokenbroker-access.shop.web",
        "ClusterRoleBinding tokenbroker-access.shop.web",
        "ClusterRoleBinding tokenbroker-access.shop.web.tokenbroker-prometheus",
        "Role tokenbroker-mint-web",
        "RoleBinding tokenbroker-mint-web",
        "TokenClient web",
    ]


def test_nothing_is_made_that_was_not_asked_for() -> None:
    """Without rights and --create there are the broker's mint Role and the TokenClient alone."""
    assert _named(PLAIN) == ["Role tokenbroker-mint-web", "RoleBinding tokenbroker-mint-web", "TokenClient web"]


def test_every_object_carries_the_labels_of_its_client() -> None:
    """By them, remove finds what belongs to a client."""
    marks = {"app.kubernetes.io/managed-by": "tokenbroker", "tokenbroker.dev/client": "web"}

    inside = [it for it in manifests(FULL) if not it["kind"].startswith("Cluster")]
    assert all(it["metadata"]["labels"] == marks for it in inside)
    assert all(it["metadata"]["namespace"] == "shop" for it in inside)


def test_rights_on_the_whole_cluster_carry_the_namespace_as_a_label() -> None:
    """Nothing of a namespace can own them, so two labels tell whose they are."""
    wide = [it for it in manifests(FULL) if it["kind"].startswith("Cluster")]

    for it in wide:
        assert it["metadata"]["labels"]["tokenbroker.dev/client"] == "web"
        assert it["metadata"]["labels"]["tokenbroker.dev/namespace"] == "shop"
        assert "namespace" not in it["metadata"]
    assert wide[0]["rules"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tokenbroker-access.shop.web"}
    assert wide[1]["roleRef"] == role
    assert wide[1]["subjects"] == [{"kind": "ServiceAccount", "namespace": "shop", "name": "web"}]


def test_broker_may_mint_for_the_one_account_and_read_nothing() -> None:
    """The broker's Role names the account and has no verb that reads."""
    role = _of(PLAIN, "Role tokenbroker-mint-web")

    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["web"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "delete"]},
    ]


def test_broker_and_account_are_bound_to_their_own_roles() -> None:
    """The mint Role goes to the broker, the rights to the account; they never meet."""
    mint, access = _of(FULL, "RoleBinding tokenbroker-mint-web"), _of(FULL, "RoleBinding tokenbroker-access-web.view")

    assert mint["subjects"] == [{"kind": "ServiceAccount", "namespace": "tokenbroker", "name": "tokenbroker"}]
    assert access["subjects"] == [{"kind": "ServiceAccount", "namespace": "shop", "name": "web"}]
    assert access["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}


def test_names_of_two_clients_never_meet() -> None:
    """A client called a with the ClusterRole b shares no name with a client called a-b."""
    one = replace(PLAIN, id=ClientId("shop", "a"), rights=Rights(("b",), ()))
    two = replace(PLAIN, id=ClientId("shop", "a-b"), rights=Rights((), (PolicyRule(("get",), ("",), ("pods",)),)))

    assert not set(_named(one)) & set(_named(two))


def test_token_client_writes_its_defaults_out() -> None:
    """The resource in git reads as it works."""
    assert _of(FULL, "TokenClient web")["spec"] == {
        "owner": "team",
        "rate": {"perMinute": 60, "burst": 10},
        "authentication": [{"clientSecret": {"digests": [DIGEST]}}],
        "grants": [
            {
                "name": "default",
                "serviceAccount": {"name": "web"},
                "audiences": ["vault", "other"],
                "ttl": {"default": "10m", "max": "2h"},
                "vault": {"ttl": "12h", "renewBefore": "4h"},
                "revocation": "Token",
                "reuse": "0s",
                "expect": {"allow": ["list pods"], "deny": ["get secrets"]},
            }
        ],
    }


def test_an_expectation_of_one_kind_is_written_alone() -> None:
    """Nothing empty is written; without any the field is left out, and tokens of the grant end together."""
    denying = replace(PLAIN, grant=replace(GRANT, expect=Expect(deny=("get secrets",))))

    assert _of(denying, "TokenClient web")["spec"]["grants"][0]["expect"] == {"deny": ["get secrets"]}
    plain = _of(PLAIN, "TokenClient web")["spec"]["grants"][0]
    assert "expect" not in plain
    assert plain["revocation"] == "Grant"


def test_suspend_is_left_out() -> None:
    """A manifest in git that says suspend: false would undo an emergency stop."""
    assert "suspend" not in _of(FULL, "TokenClient web")["spec"]


@pytest.mark.parametrize("good", [PLAIN, FULL, replace(PLAIN, digest="", grant=replace(GRANT, vault=Vault("12h", "")))])
def test_good_clients_pass(good: NewClient) -> None:
    """What the examples do is accepted, and stays as it was."""
    before = manifests(good)
    check(good)

    assert manifests(good) == before


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        (replace(PLAIN, account=Account("default", create=False)), ExitCode.REFUSED, "'default' is never granted"),
        (replace(PLAIN, id=ClientId("kube-system", "web")), ExitCode.REFUSED, "kube-* namespaces"),
        (replace(PLAIN, id=ClientId("tokenbroker", "web")), ExitCode.REFUSED, "broker's own namespace"),
        (replace(PLAIN, digest=""), ExitCode.USAGE, "needs --vault"),
        (replace(PLAIN, id=ClientId("shop", "Web")), ExitCode.USAGE, "client 'Web' is not a name"),
        (replace(PLAIN, id=ClientId("../x", "web")), ExitCode.USAGE, "namespace '../x' is not a name"),
        (replace(PLAIN, account=Account("a/b", create=False)), ExitCode.USAGE, "service account 'a/b'"),
        (replace(PLAIN, broker=BrokerAccount("tokenbroker", "")), ExitCode.USAGE, "broker's account ''"),
        (replace(PLAIN, rights=Rights(("a/b",), ())), ExitCode.USAGE, "not the name of a ClusterRole"),
        (replace(PLAIN, rights=Rights((), (), ("..",))), ExitCode.USAGE, "not the name of a ClusterRole"),
        (replace(PLAIN, grant=replace(GRANT, expect=Expect(("pods",)))), ExitCode.USAGE, "expectation 'pods' is not"),
        (replace(PLAIN, grant=replace(GRANT, expect=Expect((), ("GET x",)))), ExitCode.USAGE, "'GET' is not a verb"),
        (replace(PLAIN, grant=replace(GRANT, expect=Expect(("get pods",) * 17))), ExitCode.USAGE, "expect.allow"),
        (replace(PLAIN, grant=replace(GRANT, name="A")), ExitCode.USAGE, "grant 'A'"),
        (replace(PLAIN, grant=replace(GRANT, ttl="5m")), ExitCode.USAGE, "10m <= default"),
        (replace(PLAIN, grant=replace(GRANT, ttl="2h")), ExitCode.USAGE, "default <= max"),
        (replace(PLAIN, grant=replace(GRANT, ttl="soon")), ExitCode.USAGE, "'soon' is not a duration"),
        (replace(PLAIN, grant=replace(GRANT, max_ttl="25h")), ExitCode.USAGE, "max <= 24h"),
        (replace(PLAIN, grant=replace(GRANT, vault=Vault("12h", "13h"))), ExitCode.USAGE, "renewBefore"),
        (replace(PLAIN, grant=replace(GRANT, audiences=("a b",))), ExitCode.USAGE, "audiences"),
        (replace(PLAIN, owner="x" * 254), ExitCode.USAGE, "owner"),
    ],
)
def test_what_cannot_work_is_refused(wrong: NewClient, code: ExitCode, words: str) -> None:
    """Before anything is made, the reason is said."""
    with pytest.raises(CommandError) as refused:
        check(wrong)

    assert words in str(refused.value)
    assert refused.value.code == code


@pytest.mark.parametrize("new", [PLAIN, FULL], ids=["plain", "full"])
def test_what_is_printed_can_be_put_into_a_directory_of_clients(new: NewClient) -> None:
    """The TokenClient is read as it is, and the rest beside it left alone."""
    file = read_file("web.yaml", to_yaml(manifests(new)).encode(), "lab", None)

    assert (file.problem, file.ids) == ("", (new.id,))
    assert file.registrations[0].client is not None

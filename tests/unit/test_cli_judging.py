"""What a registration would give its account is judged before anything is made."""

from dataclasses import replace

import pytest

from broker.cli.client.judging import Judgement, check_denied, check_words, judge, refuse_strong, say, written
from broker.cli.client.rule_texts import parse_cluster_wide_rule, parse_rule
from broker.cli.errors import CommandError, ExitCode
from broker.cli.manifests import NewClient, Rights
from broker.model.access import PolicyRule
from broker.model.client import Expect
from broker.model.strength import Strength
from tests.support.discovery import catalogue
from tests.unit.test_manifests import GRANT, PLAIN

VIEW = (PolicyRule(("get",), ("",), ("pods",)),)
STRONG = Judgement((), (Strength("create pods", "runs code"),))


def client(*rules: str, wide: str = "", deny: tuple[str, ...] = (), allow: tuple[str, ...] = ()) -> NewClient:
    """Return a client with these rules and expectations."""
    rights = Rights(
        (),
        tuple(rule for text in rules for rule in parse_rule(text)),
        (),
        tuple(parse_cluster_wide_rule(wide)) if wide else (),
    )
    return replace(PLAIN, rights=rights, grant=replace(GRANT, expect=Expect(allow, deny)))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (client("get deployments"), "rule 'get deployments': deployments is in the API group 'apps'"),
        (client("list pods/log"), "rule 'list pods/log': 'list' cannot be done to pods/log"),
        (client("get nodes/status"), "nodes are in no namespace, so a Role gives no right to them"),
        (client(wide="get deploymentz.apps"), "rule 'get deploymentz.apps': there is no resource"),
        (client(allow=("get podz",)), "expectation 'get podz': the cluster has no resource"),
        (client(deny=("get pods/log",)), "write 'get pods --subresource=log'"),
    ],
)
def test_what_the_cluster_does_not_know_is_refused(wrong: NewClient, words: str) -> None:
    """With the nearest right answer, as a mistake in the arguments."""
    with pytest.raises(CommandError) as refused:
        check_words(wrong, catalogue())

    assert words in str(refused.value)
    assert refused.value.code == ExitCode.USAGE


def test_all_that_is_wrong_is_said_at_once() -> None:
    """Nobody has to try again for each."""
    with pytest.raises(CommandError, match=r"podz.*jobz.*nodez"):
        check_words(client("get podz", "get jobz.batch", deny=("get nodez",)), catalogue())


def test_what_the_cluster_knows_passes() -> None:
    """Resources without a namespace are for the whole cluster, where they work."""
    check_words(client("get,list pods,pods/log,deployments.apps", wide="get nodes,/metrics"), catalogue())


@pytest.mark.parametrize(
    "text", ["get,list pods,pods/log", "get deployments.apps/scale,jobs.apps", "* *.*", "get /metrics"]
)
def test_a_rule_is_written_as_it_is_read(text: str) -> None:
    """So that a message names what was typed."""
    assert [written(rule) for rule in parse_cluster_wide_rule(text)] == [text]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("* pods", "also allows what nobody thought of"),
        ("get *", "also allows what nobody thought of"),
        ("get pods.*", "also allows what nobody thought of"),
        ("update *.apps/scale", "also allows what nobody thought of"),
        ("get /logs/*", "also allows what nobody thought of"),
        ("escalate roles.rbac.authorization.k8s.io", "give itself any right"),
        ("bind roles.rbac.authorization.k8s.io", "rights that it does not hold"),
        ("impersonate users", "act as somebody else"),
        ("impersonate:user-info users", "act as somebody else"),
        ("get nodes/proxy", "runs commands in any pod of a node"),
    ],
)
def test_what_is_dangerous_is_told_as_what_it_is(rule: str, words: str) -> None:
    """Whoever registers the client reads what a rule really gives."""
    (note,) = judge(client(wide=rule), {}).notes

    assert words in note
    assert note.startswith(f"rule {rule!r}: ")


def test_rights_of_named_roles_make_strong_too() -> None:
    """A role that could not be read is told; one that is not strong is not."""
    assert judge(client("get pods"), {"view": VIEW}) == Judgement((), ())
    edit = judge(client(), {"edit": (PolicyRule(("create",), ("",), ("pods",)),)})
    assert [reason.what for reason in edit.strong] == ["create pods"]
    assert judge(client(), {"secret-role": None}).notes == (
        "you may not read the ClusterRole 'secret-role', so what it allows was not looked at.",
    )


def test_strong_accounts_are_refused_unless_they_are_meant(capsys: pytest.CaptureFixture[str]) -> None:
    """Either way it is said why, and that the broker's operator has to allow them."""
    with pytest.raises(
        CommandError, match=r"web would be strong.*create pods.*--allow-strong.*operator allows"
    ) as refused:
        refuse_strong(PLAIN, STRONG, allowed=False)
    refuse_strong(PLAIN, STRONG, allowed=True)
    refuse_strong(PLAIN, Judgement((), ()), allowed=False)
    say(PLAIN, replace(STRONG, notes=("beware.",)))

    assert refused.value.code == ExitCode.REFUSED
    assert capsys.readouterr().err.splitlines() == [
        "warning: beware.",
        "warning: the account web is strong: it may create pods, which runs code",
        (
            "warning: the broker refuses strong accounts, too, unless its operator allows them in the namespace shop "
            "(limits in its configuration)."
        ),
    ]


def test_nothing_is_said_about_a_plain_account(capsys: pytest.CaptureFixture[str]) -> None:
    """Silence means that all is well."""
    say(PLAIN, Judgement((), ()))

    assert capsys.readouterr().err == ""


def test_rights_that_are_to_be_denied_are_not_given() -> None:
    """The broker would issue nothing; a role that is named counts, and what nobody gives is no matter."""
    denying = client("get pods", deny=("get secrets",))
    check_denied(denying, {"view": VIEW, "unread": None}, catalogue())

    with pytest.raises(CommandError, match=r"deny 'get secrets' does not hold.*give the account less"):
        check_denied(denying, {"reader": (PolicyRule(("list",), ("",), ("secrets",)),)}, catalogue())
    with pytest.raises(CommandError, match="deny 'delete namespaces'"):
        check_denied(client("delete namespaces", deny=("delete namespaces",)), {}, catalogue())
    with pytest.raises(CommandError, match="deny 'get pods'"):
        check_denied(client("list pods", deny=("get pods",)), {}, catalogue())

"""What a TokenClient's status says of grants that went, of accounts, and of what they may do."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.errors import Fault, Reason
from broker.model.client import Expect, Grant
from broker.model.former_grants import FormerGrant, grants_left
from broker.model.status import AccessFacts, Facts, GrantFacts, conditions, status_document
from broker.model.vault_status import VaultFacts
from tests.support.rotation import client, grant

NOW = datetime(2026, 11, 25, tzinfo=UTC)
FINE = GrantFacts(rehearsed=True, access=AccessFacts())
KEPT = VaultFacts("secret/tokenbroker/lab/shop/web/default", 3, NOW + timedelta(hours=1), NOW, 60, None)
SUBJECT = "system:serviceaccount:shop:"


def listed(name: str, account: str) -> dict[str, Any]:
    """Return an entry of a status."""
    return {"name": name, "ready": True, "subject": SUBJECT + account}


def expecting() -> Grant:
    """Return a grant that says what its account may do."""
    return replace(grant(vault=None), expect=Expect(allow=("list pods",), deny=("get secrets",)))


def verified(facts: GrantFacts) -> tuple[str, str, str]:
    """Return what the condition AccessVerified says."""
    known = Facts(1, client(grants=(expecting(),)), grants={"default": facts})
    (found,) = [one for one in conditions(known, NOW) if one.type == "AccessVerified"]
    return found.status, found.reason, found.message


def test_grants_that_went_or_changed_their_account_are_left() -> None:
    """By name and account: their tokens' anchors are called after both."""
    status = {"grants": [listed("default", "reporter"), listed("gone", "other"), listed("moved", "before")]}
    now = (grant(), replace(grant(), name="moved", service_account="after"))

    assert grants_left(status, now) == (FormerGrant("gone", "other"), FormerGrant("moved", "before"))
    assert grants_left({}, now) == ()


def test_grants_that_went_stay_in_the_status_until_their_tokens_ended() -> None:
    """A broker that is started again in between finds them there."""
    before = {"grants": [listed("default", "before"), listed("gone", "other")]}
    facts = Facts(2, client(), grants={"default": FINE})

    during = status_document(facts, NOW, before)
    ended = frozenset({FormerGrant("gone", "other"), FormerGrant("default", "before")})
    after = status_document(replace(facts, ended=ended), NOW, during)

    assert [(it["name"], it["subject"]) for it in during["grants"]] == [
        ("default", SUBJECT + "before"),
        ("gone", SUBJECT + "other"),
    ]
    assert during["grants"][1]["ready"] is False
    assert [(it["name"], it["subject"]) for it in after["grants"]] == [("default", SUBJECT + "reporter")]


def test_strong_accounts_are_shown_as_strong() -> None:
    """Where the operator allows them; before anybody looked, nothing is said."""
    known = Facts(1, client(), grants={"default": GrantFacts(rehearsed=True, access=AccessFacts(strong=True))})
    unknown = Facts(1, client(), grants={"default": GrantFacts(rehearsed=True)})

    assert status_document(known, NOW, {})["grants"][0]["strong"] is True
    assert "strong" not in status_document(unknown, NOW, {})["grants"][0]


def test_without_expectations_nothing_is_said_of_access() -> None:
    """There is nothing to hold the account to."""
    kinds = {one.type for one in conditions(Facts(1, client(), grants={"default": FINE}), NOW)}

    assert "AccessVerified" not in kinds


def test_access_is_verified_when_everything_holds() -> None:
    """And pending before anybody looked."""
    assert verified(GrantFacts())[:2] == ("Unknown", "Pending")
    assert verified(FINE)[:2] == ("True", "Verified")


def test_a_denied_right_that_is_held_makes_the_client_not_ready() -> None:
    """The condition names the grant and the rule."""
    facts = GrantFacts(rehearsed=True, fault=Fault(Reason.ACCESS_NOT_AS_DECLARED, "the rule X allows it"))
    known = Facts(1, client(grants=(expecting(),)), grants={"default": facts})
    ready = conditions(known, NOW)[0]

    assert verified(facts) == ("False", "AccessNotAsDeclared", "grant default: the rule X allows it")
    assert (ready.type, ready.status, ready.reason) == ("Ready", "False", "AccessNotAsDeclared")


def test_a_missing_right_is_a_warning() -> None:
    """Tokens are issued all the same."""
    facts = GrantFacts(rehearsed=True, access=AccessFacts(doubts=("allow 'list pods' does not hold.",)))
    known = Facts(1, client(grants=(expecting(),)), grants={"default": facts})

    assert verified(facts) == ("False", "AccessMissing", "grant default: allow 'list pods' does not hold.")
    assert conditions(known, NOW)[0].status == "True"


def test_what_cannot_be_told_is_no_pass() -> None:
    """It is unknown, with what cannot be told."""
    facts = GrantFacts(rehearsed=True, access=AccessFacts(certain=False, doubts=("who knows.",)))

    assert verified(facts) == ("Unknown", "RulesIncomplete", "grant default: who knows.")


def test_what_is_not_valid_keeps_its_grants_in_the_status() -> None:
    """Who suspends it wants their tokens to end, and nothing else says which there are."""
    before = {"grants": [listed("default", "reporter")]}
    invalid = Facts(2, None, invalid=Fault(Reason.INVALID_REQUEST, "spec: no"))

    assert status_document(invalid, NOW, before)["grants"] == [{**listed("default", "reporter"), "ready": False}]
    assert "grants" not in status_document(invalid, NOW, {})


def test_a_message_is_as_long_as_the_schema_allows() -> None:
    """A longer one would keep the whole status from being written, and an older one would be believed."""
    facts = Facts(1, None, invalid=Fault(Reason.INVALID_REQUEST, "x" * 5000))

    assert len(status_document(facts, NOW, {})["conditions"][0]["message"]) == 4096


@pytest.mark.parametrize(
    ("changes", "fault", "reason"),
    [
        ({"suspended": True}, None, "Suspended"),
        ({"not_after": NOW}, None, "Expired"),
        ({}, Reason.GRANT_FORBIDDEN, "GrantForbidden"),
        ({}, Reason.LIMITS_EXCEEDED, "LimitsExceeded"),
        ({}, Reason.ACCOUNT_TOO_STRONG, "AccountTooStrong"),
        ({}, Reason.ACCESS_NOT_AS_DECLARED, "AccessNotAsDeclared"),
    ],
)
def test_a_copy_whose_token_was_ended_is_not_shown_as_good(
    changes: dict[str, Any], fault: Reason | None, reason: str
) -> None:
    """It is there, of that version, and neither synced nor to be renewed nor good until a time."""
    known = replace(FINE, vault=KEPT, fault=Fault(fault, "why") if fault else None)
    status = status_document(Facts(1, client(**changes), grants={"default": known}), NOW, {})

    said = {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}
    assert (said["Ready"], said["VaultSynced"]) == (("False", reason), ("False", reason))
    assert status["grants"][0]["vault"] == {"path": KEPT.path, "version": 3}
    assert status.keys() & {"vaultNotAfter", "vaultRenewalTime"} == set()


@pytest.mark.parametrize("fault", [None, Reason.KUBERNETES_UNAVAILABLE, Reason.SERVICE_ACCOUNT_MISSING])
def test_a_copy_that_lives_is_shown_until_its_end(fault: Reason | None) -> None:
    """Whatever else is wrong with the client: nothing ended it."""
    known = replace(FINE, vault=KEPT, fault=Fault(fault, "why") if fault else None)
    status = status_document(Facts(1, client(), grants={"default": known}), NOW, {})

    assert [one["reason"] for one in status["conditions"] if one["type"] == "VaultSynced"] == ["Synced"]
    assert status["vaultNotAfter"] == status["grants"][0]["vault"]["notAfter"] == "2026-11-25T01:00:00Z"

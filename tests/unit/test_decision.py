"""Which requests of a client are granted, and why the others are not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.errors import Reason
from broker.model.client import Client, ClientId, Grant, Proofs, TtlRange
from broker.model.decision import Allowed, Ask, Denied, Rules, decide

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RULES = Rules("tokenbroker", "https://api", frozenset({"vault"}))
GRANT = Grant("default", "reader", (), TtlRange(900, 3600), None)
CLIENT = Client(ClientId("shop", "reporter"), "uid", 1, "", None, False, Proofs(), (GRANT,))  # noqa: FBT003 - positional value


def reason(client: Client, ask: Ask | None = None) -> Reason:
    """Return why a request is denied."""
    decision = decide(client, ask or Ask(), RULES, NOW)
    assert isinstance(decision, Denied)
    return decision.reason


def test_an_ask_for_nothing_gets_the_grants_defaults() -> None:
    """The one grant, its default TTL, and the API server's own audience."""
    assert decide(CLIENT, Ask(), RULES, NOW) == Allowed(GRANT, "https://api", 900)


@pytest.mark.parametrize(("ttl", "seconds"), [("10m", 600), ("1h", 3600), ("59m59s", 3599)])
def test_a_ttl_within_the_bounds_is_granted_exactly(ttl: str, seconds: int) -> None:
    """Both bounds belong to the range."""
    decision = decide(CLIENT, Ask(ttl=ttl), RULES, NOW)

    assert isinstance(decision, Allowed)
    assert decision.ttl_seconds == seconds


@pytest.mark.parametrize("ttl", ["9m59s", "1h1s", "", "15", "-15m", "1.5h", "15m ", "٣m", "99999999h"])
def test_any_other_ttl_is_refused_with_the_limits(ttl: str) -> None:
    """Nothing is rounded, trimmed or capped."""
    decision = decide(CLIENT, Ask(ttl=ttl), RULES, NOW)

    assert isinstance(decision, Denied)
    assert decision.reason is Reason.TTL_OUT_OF_RANGE
    assert decision.limits is not None
    assert (decision.limits.min_ttl_seconds, decision.limits.max_ttl_seconds) == (600, 3600)


def test_a_suspended_client_gets_nothing() -> None:
    """Suspension comes before everything else."""
    assert reason(replace(CLIENT, suspended=True)) is Reason.CLIENT_SUSPENDED


@pytest.mark.parametrize(("offset", "denied"), [(0, True), (-1, True), (1, False)])
def test_a_registration_ends_at_its_very_second(offset: int, denied: bool) -> None:  # noqa: FBT001 - a test's case
    """At notAfter it is over."""
    client = replace(CLIENT, not_after=NOW + timedelta(seconds=offset))

    assert isinstance(decide(client, Ask(), RULES, NOW), Denied) is denied


def test_one_of_several_grants_has_to_be_named() -> None:
    """The broker does not choose; a grant that is not there is refused."""
    other = replace(GRANT, name="other", service_account="writer")
    client = replace(CLIENT, grants=(GRANT, other))

    assert reason(client) is Reason.GRANT_REQUIRED
    assert reason(client, Ask(grant="third")) is Reason.GRANT_UNKNOWN
    assert isinstance(decide(client, Ask(grant="other"), RULES, NOW), Allowed)


def test_only_listed_audiences_are_granted_and_the_first_is_the_default() -> None:
    """Where a grant lists audiences, the API server's own is not among them by itself."""
    client = replace(CLIENT, grants=(replace(GRANT, audiences=("one", "two")),))

    default, second = decide(client, Ask(), RULES, NOW), decide(client, Ask(audience="two"), RULES, NOW)

    assert isinstance(default, Allowed)
    assert isinstance(second, Allowed)
    assert (default.audience, second.audience) == ("one", "two")
    assert reason(client, Ask(audience="https://api")) is Reason.AUDIENCE_NOT_ALLOWED


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "kube-x", "tokenbroker"])
def test_nothing_is_granted_in_reserved_namespaces(namespace: str) -> None:
    """Even where admission was gone around."""
    assert reason(replace(CLIENT, id=ClientId(namespace, "x"))) is Reason.GRANT_FORBIDDEN


@pytest.mark.parametrize(
    "grant", [replace(GRANT, service_account="default"), replace(GRANT, audiences=("one", "vault"))]
)
def test_neither_the_default_account_nor_a_reserved_audience_is_granted(grant: Grant) -> None:
    """A token of Vault's audience would be the broker's own way in."""
    assert reason(replace(CLIENT, grants=(grant,))) is Reason.GRANT_FORBIDDEN


@pytest.mark.parametrize("text", ["", "a", "/", "a/", "/b", "A/b", "a/b/c", "../b", "a/..", "%2e/b", "a b/c", "a\n/b"])
def test_what_cannot_be_an_id_is_none(text: str) -> None:
    """Ids are two names that Kubernetes accepts."""
    assert ClientId.parse(text) is None


@pytest.mark.parametrize("text", ["a/b", "null/123", "1e3/true", "a-b/c-d"])
def test_odd_but_valid_names_are_ids(text: str) -> None:
    """Names that other formats take for something else are names here."""
    assert str(ClientId.parse(text)) == text

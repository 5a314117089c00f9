"""What issuing looks at: a grant counts only as it was looked at."""

from dataclasses import replace

from broker.errors import Fault, Reason
from broker.model.client import ClientId
from broker.model.prepared import Prepared
from broker.model.token import Anchor
from broker.services.grant_book import GrantBook
from tests.support.rotation import KEY, client, grant

FAULT = Fault(Reason.ACCOUNT_TOO_STRONG, "strong")
PREPARED = Prepared(grant(), Anchor("a", "1"), "uid-of-account")


def test_a_grant_that_changed_was_not_looked_at() -> None:
    """Nothing is minted for another account on the word of the one before."""
    book = GrantBook()
    book.put(client(), PREPARED)

    assert book.get(client(), grant()) == PREPARED
    assert book.get(client(), replace(grant(), service_account="strong")) is None
    assert book.get(client(), replace(grant(), name="other")) is None


def test_a_client_that_was_made_again_has_nothing() -> None:
    """Neither what was prepared for its predecessor nor what it was barred for."""
    book = GrantBook()
    book.put(client(), PREPARED)
    book.bar(client(), replace(grant(), name="barred"), FAULT)

    assert book.get(client(uid="uid-2"), grant()) is None
    assert book.fault(client(uid="uid-2"), replace(grant(), name="barred")) is None


def test_a_grant_that_is_barred_is_not_issued_for_until_it_is_prepared_again() -> None:
    """And it is known why."""
    book = GrantBook()
    book.put(client(), PREPARED)

    book.bar(client(), grant(), FAULT)
    assert (book.get(client(), grant()), book.fault(client(), grant())) == (None, FAULT)

    book.put(client(), PREPARED)
    assert (book.get(client(), grant()), book.fault(client(), grant())) == (PREPARED, None)


def test_a_failure_bars_only_what_was_not_prepared() -> None:
    """Where the API server is away for a while, what was looked at is issued for all the same."""
    book = GrantBook()
    book.failed(client(), grant(), FAULT)
    assert book.fault(client(), grant()) == FAULT

    book.put(client(), PREPARED)
    book.failed(client(), grant(), FAULT)
    assert book.get(client(), grant()) == PREPARED


def test_what_was_replaced_already_is_not_dropped() -> None:
    """Two requests may find out at once that an anchor is gone."""
    book, newer = GrantBook(), replace(PREPARED, anchor=Anchor("a", "2"))
    book.put(client(), newer)

    book.drop(client(), PREPARED)
    assert book.get(client(), grant()) == newer

    book.drop(client(), newer)
    assert book.get(client(), grant()) is None


def test_a_client_that_went_is_forgotten() -> None:
    """With what it was barred for; another one of its namespace stays."""
    book, other = GrantBook(), client(id=ClientId(KEY.client.namespace, "other"))
    for known in (client(), other):
        book.put(known, PREPARED)
        book.bar(known, replace(grant(), name="barred"), FAULT)
    book.forget(KEY.client)

    assert book.get(client(), grant()) is None
    assert book.fault(client(), replace(grant(), name="barred")) is None
    assert book.get(other, grant()) == PREPARED
    assert book.refusal(client(), grant()).reason is Reason.ANCHOR_MISSING
    assert book.refusal(other, replace(grant(), name="barred")).reason is FAULT.reason

"""Labels survive Vault's custom_metadata, whatever others do to it."""

from datetime import UTC, datetime

import pytest

from broker.model.client import ClientId
from broker.model.stored_copy import CopyLabel, RetiredAnchor
from broker.model.token import Anchor
from broker.vault.label import read_label, write_label

LABEL = CopyLabel(
    client_uid="uid",
    client=ClientId("null", "1e3"),
    grant="123",
    server="https://api.example",
    service_account="reporter",
    audience="https://kubernetes.default.svc",
    ttl_seconds=43200,
    version=7,
    issued_at=datetime(2026, 11, 24, 12, tzinfo=UTC),
    expires_at=datetime(2026, 11, 25, tzinfo=UTC),
    jti="",
    anchor=Anchor("tokenbroker-anchor-a", "anchor-uid"),
    retired=tuple(
        RetiredAnchor(Anchor(f"tokenbroker-anchor-{number}", f"uid-{number}"), datetime(2026, 11, 24, tzinfo=UTC))
        for number in range(36)
    ),
    account_uid="account-uid",
)


def test_a_label_comes_back_as_it_was() -> None:
    """Everything is kept, in order, within what Vault allows for keys and values."""
    metadata = write_label(LABEL)

    assert read_label(metadata) == LABEL
    assert len(metadata) <= 64
    assert all(0 < len(value) <= 512 and len(key) <= 128 for key, value in metadata.items())


@pytest.mark.parametrize("key", sorted(write_label(LABEL).keys() - {"managed-by"}))
@pytest.mark.parametrize("value", [None, "", "../x", "\x00"])
def test_a_tampered_label_is_read_or_refused_but_never_raises(key: str, value: str | None) -> None:
    """Whoever edits the metadata cannot stop the broker, only make it leave the path alone."""
    metadata = {name: text for name, text in write_label(LABEL).items() if name != key}
    if value is not None:
        metadata[key] = value

    label = read_label(metadata)

    assert label is None or label != LABEL


def test_what_others_manage_has_no_label() -> None:
    """Without managed-by, or with somebody else's, nothing is read."""
    assert read_label({}) is None
    assert read_label(write_label(LABEL) | {"managed-by": "somebody"}) is None

"""Labels survive Vault's custom_metadata, whatever others do to it."""

from datetime import UTC, datetime

import pytest

from broker.model.client import ClientId
from broker.model.stored_copy import CopyLabel, RetiredAnchor
from broker.model.token import Anchor
from broker.vault.label import read_label, write_label

NAME = "tokenbroker-anchor-mfrggzdfmztwq2lknnwg23tp"
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
    anchor=Anchor(f"{NAME}-1a2b3c4d-v7", "anchor-uid"),
    retired=tuple(
        RetiredAnchor(Anchor(f"{NAME}-1a2b3c4d-v{number}", f"uid-{number}"), datetime(2026, 11, 24, tzinfo=UTC))
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


@pytest.mark.parametrize(
    ("name", "uid"),
    [
        (NAME, ""),
        ("", "uid-1"),
        ("other-secret", "uid-1"),
        (f"x{NAME}", "uid-1"),
        (f"{NAME}?dryRun=None", "uid-1"),
        (f"{NAME}/../../serviceaccounts/reporter", "uid-1"),
        (NAME, "uid\n1"),
    ],
)
def test_a_forged_label_deletes_no_anchor_but_one_of_its_own_uid(name: str, uid: str) -> None:
    """Anchors that a label names are deleted: what is no anchor's name and UID makes it none of the broker's."""
    of_version = {"anchor-name": name, "anchor-uid": uid}
    replaced = {"retired-anchor-1": f"{name} {uid} until 2026-11-24T00:00:00Z"}

    assert read_label(write_label(LABEL) | of_version) is None
    assert read_label(write_label(LABEL) | replaced) is None


def test_what_others_manage_has_no_label() -> None:
    """Without managed-by, or with somebody else's, nothing is read."""
    assert read_label({}) is None
    assert read_label(write_label(LABEL) | {"managed-by": "somebody"}) is None

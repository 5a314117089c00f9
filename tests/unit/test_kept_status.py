"""A status that is kept as JSON reads like the object that it was made of."""

from typing import Any

import pytest

from broker.registration.kept_status import KeptStatus

STATUS: dict[str, Any] = {"observedGeneration": 2, "grants": [{"name": "default", "ready": True}], "text": "\u00e4"}


def test_it_reads_like_a_mapping() -> None:
    """Whoever looks into a status does not see the difference."""
    kept = KeptStatus(STATUS)

    assert dict(kept) == STATUS
    assert dict(kept.items()) == STATUS
    assert (len(kept), list(kept)) == (3, list(STATUS))
    assert kept["grants"][0]["name"] == "default"
    assert kept.get("conditions", ()) == ()
    assert "conditions" not in kept
    with pytest.raises(KeyError, match="conditions"):
        kept["conditions"]


def test_it_is_equal_to_what_says_the_same() -> None:
    """A status is written only where it says something else than the one that is kept."""
    turned = dict(reversed(STATUS.items()))

    assert KeptStatus(STATUS) == STATUS
    assert KeptStatus(STATUS) == KeptStatus(STATUS)
    assert KeptStatus(STATUS) == KeptStatus(turned)
    assert KeptStatus(STATUS) != {**STATUS, "observedGeneration": 3}
    assert KeptStatus(STATUS) != KeptStatus({**STATUS, "observedGeneration": 3})


def test_what_a_reader_changes_is_not_kept() -> None:
    """Each reader gets an object of its own."""
    kept = KeptStatus(STATUS)
    kept["grants"][0]["name"] = "other"

    assert kept == STATUS

"""A string that does not print."""

import pickle

import pytest

from broker.model.sensitive import Sensitive

HIDDEN = "tbs_hidden"


@pytest.mark.parametrize("shown", [str, repr, "{}".format, "{:>20}".format, "%s".__mod__, ascii])
def test_it_never_prints(shown: object) -> None:
    """Whatever turns it into text gets stars."""
    assert callable(shown)
    assert HIDDEN not in shown(Sensitive(HIDDEN))


def test_it_is_opened_on_purpose_only() -> None:
    """reveal() is the one way; comparing, hashing and pickling are refused."""
    value = Sensitive(HIDDEN)

    assert value.reveal() == HIDDEN
    for misuse in (lambda: value == HIDDEN, lambda: hash(value), lambda: pickle.dumps(value)):
        with pytest.raises(TypeError):
            misuse()

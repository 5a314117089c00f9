"""Client secrets: their format, their digests and what a comparison costs."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity import secret

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"


def test_format_is_prefix_random_part_and_checksum() -> None:
    """A generated secret has 4 + 43 + 6 characters, is well formed and does not print."""
    made = secret.generate()

    assert len(made.reveal()) == 53
    assert secret.well_formed(made.reveal())
    assert made.reveal() not in f"{made}{made!r}"


def test_known_secret_keeps_its_checksum() -> None:
    """The checksum is what it was in the first release: secrets that were handed out must stay valid."""
    assert secret.well_formed("tbs_" + "A" * 43 + "0pVg6v")


def test_two_secrets_differ() -> None:
    """No two secrets are alike."""
    assert len({secret.generate().reveal() for _ in range(100)}) == 100


@given(st.integers(0, 52), st.sampled_from(_ALPHABET + "é=%/ \n"))
def test_one_changed_character_is_noticed(position: int, character: str) -> None:
    """A secret with one wrong character is turned away before anything is hashed."""
    made = secret.generate().reveal()
    changed = made[:position] + character + made[position + 1 :]

    assert secret.well_formed(changed) is (changed == made)


@given(st.text())
def test_other_texts_are_not_secrets(text: str) -> None:
    """Nothing that we did not make is well formed, lone surrogates and newlines included."""
    assert not secret.well_formed(text)
    assert not secret.well_formed("tbs_" + text)


@pytest.mark.parametrize("extra", ["\n", "\0", " ", "A"])
def test_trailing_characters_are_noticed(extra: str) -> None:
    """A secret read with its line end is not one: nothing is stripped silently."""
    assert not secret.well_formed(secret.generate().reveal() + extra)


def test_well_formed_does_not_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Garbage costs no SHA-256."""
    made = secret.generate().reveal()
    monkeypatch.delattr(hashlib, "sha256")

    assert secret.well_formed(made)


def test_digest_covers_the_whole_text() -> None:
    """The digest is that of the text as written, so that anybody can compute it with sha256sum."""
    made = secret.generate().reveal()
    digest = secret.digest(made)

    assert digest == hashlib.sha256(made.encode()).digest()
    assert secret.format_digest(digest) == f"sha256:{digest.hex()}"


def test_either_of_two_digests_matches() -> None:
    """While a secret is being replaced, the old and the new one both work."""
    old, new, other = (secret.generate().reveal() for _ in range(3))
    digests = (secret.digest(old), secret.digest(new))

    assert secret.matches(old, digests)
    assert secret.matches(new, digests)
    assert secret.matches(new, digests[1:])
    assert not secret.matches(other, digests)


def test_no_digest_matches_nothing() -> None:
    """A client without secrets, or an unknown one, never matches."""
    assert not secret.matches(secret.generate().reveal(), ())


@pytest.mark.parametrize("count", [0, 1, 2])
def test_every_refusal_compares_twice(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work does not tell how many digests a client has, or whether the first of them matched."""
    made = secret.generate().reveal()
    compared: list[int] = []
    compare = hmac.compare_digest

    def counting(given: bytes, known: bytes) -> bool:
        compared.append(len(known))
        return compare(given, known)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    secret.matches(made, (secret.digest(made),) * count)

    assert compared == [32, 32]

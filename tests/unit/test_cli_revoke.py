"""What revoke-all has seen and what it warns of, and how strong accounts are shown."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.cli.client.anchors import warnings
from broker.cli.client.revoke_all import Before, missing, rounded_up
from broker.cli.client.suspending import Ready, ready
from broker.cli.client.views import details, row
from tests.support.command import command

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
GRANTS = [
    {"name": "kept", "vault": {}, "serviceAccount": {"name": "a"}, "ttl": {"default": "15m", "max": "1h"}},
    {
        "name": "free",
        "revocation": "None",
        "reuse": "30s",
        "serviceAccount": {"name": "a"},
        "ttl": {"default": "15m", "max": "1h"},
    },
]


def found(version: int = 1, *, strong: bool = False) -> dict[str, object]:
    """Return a TokenClient."""
    metadata = {"namespace": "shop", "name": "web", "creationTimestamp": "2026-11-25T11:00:00Z"}
    kept = {"name": "kept", "strong": strong, "vault": {"path": "p", "version": version}}
    return {"metadata": metadata, "spec": {"grants": GRANTS}, "status": {"grants": [kept]}}


def anchor(uid: str) -> dict[str, object]:
    """Return an anchor of a grant."""
    return {"metadata": {"uid": uid}}


def test_what_the_broker_has_not_shown_yet_is_named() -> None:
    """New anchors for what has any, and a higher version for what is in Vault."""
    before = Before(found(), frozenset({"old"}))

    assert missing(before, found(2), [anchor("new")]) == []
    assert missing(before, found(1), [anchor("new")]) == ["a new version in Vault of grant kept"]
    assert missing(before, found(2), [anchor("old")]) == ["new anchors of its grants"]
    assert missing(before, found(2), []) == ["new anchors of its grants"]


def test_what_lives_on_is_warned_about() -> None:
    """Unbound tokens, and strong accounts."""
    assert warnings(found()) == ["tokens of grant free are bound to nothing (revocation: None) and live on."]
    assert "the account of grant kept is strong" in warnings(found(strong=True))[1]


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (NOW, "2026-11-25T12:00:00Z"),
        (NOW.replace(microsecond=1), "2026-11-25T12:00:01Z"),
        (NOW.replace(second=59, microsecond=9), "2026-11-25T12:01:00Z"),
    ],
)
def test_times_are_rounded_up(moment: datetime, text: str) -> None:
    """A version of the same second counts as older."""
    assert rounded_up(moment) == text


def test_strong_accounts_are_shown_as_such() -> None:
    """In the list and in the details."""
    assert row(found(strong=True), NOW)[4] == "kept (strong), free"
    assert row(found(), NOW)[4] == "kept, free"
    text = "\n".join(details(found(strong=True), NOW))
    assert text.count("strong: it can make credentials that no revocation ends") == 1
    assert text.count("Revocation: Grant") == text.count("Revocation: None") == 1
    assert text.count("Reuse:      30s") == text.count("Reuse:      0s") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "which token?"),
        (("0123456789abcdef01234567", "--token-file", "f"), "not both"),
        (("eyJhbGciOi",), "process lists show arguments"),
        (("2f1c7a52-0000-4000-8000-000000000000",), "share theirs"),
    ],
)
def test_which_token_is_told_without_asking_anybody(words: tuple[str, ...], said: str) -> None:
    """What cannot be meant is refused before a secret is read."""
    ended = command("token", "revoke", *words)

    assert ended.code == 2
    assert said in ended.stderr


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (" \n", "holds no token")])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    """The broker is not asked about nothing."""
    file, secret = tmp_path / "token", tmp_path / "jwt"
    secret.write_text("eyJ.eyJ.c2ln")
    secret.chmod(0o600)
    if content is not None:
        file.write_text(content)
    who = ("--url", "https://broker.example", "--client", "shop/web", "--jwt-file", str(secret))
    ended = command("token", "revoke", "--token-file", str(file), *who)

    assert ended.code == 2
    assert said in ended.stderr


def test_a_status_of_an_earlier_generation_says_nothing() -> None:
    """The broker that wrote it has not seen the client as it is now."""
    conditions = [{"type": "Ready", "status": "False", "reason": "Suspended"}]
    seen = {"metadata": {"generation": 2}, "status": {"observedGeneration": 2, "conditions": conditions}}

    assert ready(seen) == Ready("False", "Suspended")
    assert ready({**seen, "metadata": {"generation": 3}}) == Ready()
    assert ready({"metadata": {"generation": 1}}) == Ready()

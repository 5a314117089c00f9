"""A token in a file, kept fresh: on sleeps that only write down how long they would be."""

import asyncio
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker.cli.errors import CommandError, ExitCode
from broker.cli.token import keep as keeping
from broker.cli.token.keep import Fetched, keep
from broker.cli.token.token_file import replaced
from broker.model.sensitive import Sensitive

AWAY = CommandError("the broker is away.", ExitCode.UNAVAILABLE)
REFUSED = CommandError("no.", ExitCode.REFUSED)


@dataclass
class Watched:
    """What comes of fetching, one after the other, and how long was slept in between; the end is a signal."""

    path: Path
    outcomes: list[Fetched | CommandError]
    slept: list[float] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    async def fetch(self) -> Fetched:
        """Return or raise the next outcome."""
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, CommandError):
            raise outcome
        return outcome

    async def sleep(self, seconds: float) -> None:
        """Write down; after the last outcome, be ended as by a supervisor."""
        self.slept.append(seconds)
        self.seen.append(self.path.read_text() if self.path.exists() else "")
        if not self.outcomes:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(10)

    async def run(self, command: str | None = None) -> None:
        """Watch until the outcomes are over."""
        await keep(self.fetch, self.path, command, sleep=self.sleep)


Make = Callable[..., Watched]


@pytest.fixture
def watched(tmp_path: Path) -> Make:
    """Return what makes one: numbers are the seconds that a token lives, errors are raised."""

    def make(*outcomes: int | CommandError) -> Watched:
        tokens = [
            Fetched(Sensitive(f"token-{place}\n"), one) if isinstance(one, int) else one
            for place, one in enumerate(outcomes)
        ]
        return Watched(tmp_path / "token", tokens)

    return make


async def test_each_token_is_replaced_after_two_thirds_of_its_life(watched: Make) -> None:
    """Or up to a tenth earlier, so that many do not come at once; SIGTERM ends it, and the file stays."""
    one = watched(900, 600)
    await one.run()

    assert one.seen == ["token-0\n", "token-1\n"]
    assert 900 * (2 / 3 - 0.1) <= one.slept[0] <= 900 * 2 / 3
    assert 600 * (2 / 3 - 0.1) <= one.slept[1] <= 600 * 2 / 3
    assert one.path.read_text() == "token-1\n"


async def test_a_broker_that_is_away_is_asked_again(watched: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Also for the first token: a sidecar starts before its neighbours. What is wrong is said."""
    one = watched(AWAY, AWAY, 900)
    await one.run()

    assert one.seen == ["", "", "token-2\n"]
    assert max(one.slept[:2]) <= 2
    assert capsys.readouterr().err.count("the broker is away. Trying again in") == 2


async def test_the_brokers_word_on_when_to_come_back_counts(watched: Make) -> None:
    """Retry-After is the least that is waited."""
    one = watched(CommandError("later.", ExitCode.UNAVAILABLE, 30), 900)
    await one.run()

    assert one.slept[0] == 30


@pytest.mark.parametrize("code", [ExitCode.REFUSED, ExitCode.USAGE, ExitCode.UNAUTHENTICATED])
async def test_a_first_token_that_is_refused_ends_it(watched: Make, code: ExitCode) -> None:
    """Trying again would not help, and somebody is looking."""
    one = watched(CommandError("no.", code), 900)

    with pytest.raises(CommandError, match=r"no\."):
        await one.run()
    assert one.slept == []


async def test_a_later_refusal_does_not_end_it(watched: Make) -> None:
    """The old token still counts, and the refusal may be mended before its end; failures back off."""
    one = watched(900, *[REFUSED] * 8, 900)
    await one.run()

    assert one.seen == ["token-0\n"] * 9 + ["token-9\n"]
    assert max(one.slept[1:9]) <= 60
    assert max(one.slept[5:9]) > max(one.slept[1:3])


async def test_a_file_that_cannot_be_written(watched: Make, tmp_path: Path) -> None:
    """Said at once, like a refusal."""
    one = watched(900)
    one.path = tmp_path / "nowhere" / "token"

    with pytest.raises(CommandError, match="cannot be written: No such file or directory"):
        await one.run()


async def test_the_command_runs_after_each_replacement(watched: Make, tmp_path: Path) -> None:
    """It finds the new token in the file; how it ends changes nothing."""
    one = watched(900, REFUSED, 600)
    await one.run(f"cat {one.path} >> {tmp_path}/log; exit 3")

    assert (tmp_path / "log").read_text() == "token-0\ntoken-2\n"


async def test_a_command_that_hangs_is_ended(
    watched: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what it started; the next token is not held up."""
    monkeypatch.setattr(keeping, "COMMAND_SECONDS", 0.2)
    one = watched(900, 600)
    await one.run(f"(sleep 5; touch {tmp_path}/late) & sleep 5")

    assert one.seen == ["token-0\n", "token-1\n"]
    assert capsys.readouterr().err.count("did not end within 0.2 s") == 2
    assert not (tmp_path / "late").exists()


def test_the_file_is_its_owners_alone_and_replaced_whole(tmp_path: Path) -> None:
    """0600 whatever was there before; a link is replaced, and what it led to is left alone."""
    other = tmp_path / "other"
    other.write_text("theirs")
    other.chmod(0o644)
    path = tmp_path / "token"
    path.symlink_to(other)
    replaced(path, Sensitive("mine"))

    assert (path.read_text(), other.read_text()) == ("mine", "theirs")
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [other, path]


def test_nothing_is_left_behind_by_a_failure(tmp_path: Path) -> None:
    """A folder in the place of the file."""
    path = tmp_path / "token"
    path.mkdir()

    with pytest.raises(CommandError, match="cannot be written"):
        replaced(path, Sensitive("mine"))
    assert list(tmp_path.iterdir()) == [path]

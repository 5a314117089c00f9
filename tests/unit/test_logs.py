"""Every line of the log is one JSON object, whoever wrote it."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from broker.logs import UnhurriedStream

SAY = """
import logging, structlog
from broker.logs import set_up_logging
set_up_logging({level!r})
log = structlog.get_logger("ours")
for level in ("debug", "info", "warning", "error"):
    getattr(log, level)("said." + level, n=1)
    getattr(logging.getLogger("aiohttp.client"), level)("heard %s", level)
try:
    raise ValueError("two\\nlines")
except ValueError:
    log.exception("said.exception")
    logging.getLogger("asyncio").exception("heard exception")
"""

SAY_WHAT_IS_NOT_UTF8 = """
import logging, os, structlog
from broker.logs import set_up_logging
set_up_logging("info")
name = os.fsdecode(b"caf\\xc3\\xa9\\xff.yaml")
structlog.get_logger("ours").warning("said", file=name, **{name: [name, object()]})
logging.getLogger("theirs").warning("heard %s", name)
"""


SAY_A_LOT = """
import logging, structlog, sys
from broker.logs import set_up_logging
set_up_logging("info")
log = structlog.get_logger("ours")
def say():
    for number in range(2000):
        log.info("said", number=number, text="x" * (number % 7000))
        logging.getLogger("theirs").warning("heard %d", number)
say()
print("said it all", flush=True)
sys.stdin.readline()
log.info("last")
"""


def _lines(level: str) -> list[dict[str, str]]:
    return _said_by(SAY.format(level=level))


def _said_by(program: str) -> list[dict[str, str]]:
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60)
    assert ended.stdout == ""
    return [json.loads(line) for line in ended.stderr.splitlines()]


def test_libraries_warn_at_most() -> None:
    """At debug our own events come at every level; what libraries say below a warning may hold tokens."""
    events = [line["event"] for line in _lines("debug")]

    assert [event for event in events if event.startswith("said")] == [
        *("said.debug", "said.info", "said.warning", "said.error", "said.exception"),
    ]
    assert [event for event in events if event.startswith("heard")] == [
        *("heard warning", "heard error", "heard exception"),
    ]


def test_level_holds_for_all() -> None:
    """At error nobody warns."""
    assert {line["level"] for line in _lines("error")} == {"error"}


def test_line_has_time_level_and_stack_in_one_object() -> None:
    """A stack trace is a field, not more lines."""
    lines = _lines("info")
    failed = [line for line in lines if "exception" in line]

    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    assert len(failed) == 2
    assert all("ValueError: two\nlines" in line["exception"] for line in failed)


def test_text_that_is_not_utf8_is_logged_all_the_same() -> None:
    """Such a name of a file, or a header, must not end whoever mentions it: what is no character is shown escaped."""
    ours, theirs = _said_by(SAY_WHAT_IS_NOT_UTF8)
    name = "caf\N{LATIN SMALL LETTER E WITH ACUTE}\\udcff.yaml"

    assert ours["file"] == name
    assert ours[name][0] == name
    assert theirs["event"] == f"heard {name}"


def test_nobody_waits_for_who_reads_the_log() -> None:
    """A pipe that is full costs lines, which are counted, and no time; afterwards lines are whole again."""
    with subprocess.Popen(
        [sys.executable, "-c", SAY_A_LOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as said:
        assert said.stdin is not None
        assert said.stdout is not None
        assert said.stderr is not None
        done = said.stdout.readline()
        os.set_blocking(said.stderr.fileno(), False)
        kept = said.stderr.read()
        os.set_blocking(said.stderr.fileno(), True)
        _, rest = said.communicate(b"go on\n", timeout=60)
    lines = (kept + rest).split(b"\n")
    whole = [json.loads(line) for line in lines if line.endswith(b"}")]
    lost = [line["lines"] for line in whole if line["event"] == "log.lost"]

    assert done == b"said it all\n"
    assert len(kept) >= 32768
    assert whole[-1]["event"] == "last"
    assert len(lost) == 1
    assert len(whole) - 2 + lost[0] == 4000
    assert len([line for line in lines if line and not line.endswith(b"}")]) <= 1


def test_a_line_that_was_cut_short_takes_no_other_along() -> None:
    """What comes next stands on a line of its own, after the word that something was left out."""
    reading, writing = os.pipe()
    try:
        stream = UnhurriedStream(writing)
        stream.write(b"x" * 1_000_000 + b"\n")
        cut = os.read(reading, 1_000_000)
        stream.write(b"next\n")
        lines = os.read(reading, 1_000_000).split(b"\n")
    finally:
        os.close(reading)
        os.close(writing)

    assert set(cut) == {ord("x")}
    assert (lines[0], json.loads(lines[1])["lines"], lines[2:]) == (b"", 1, [b"next", b""])


def test_a_full_disk_costs_lines_and_no_more(tmp_path: Path) -> None:
    """A file that may grow no further (EFBIG, as with ENOSPC) ends nobody."""
    log = tmp_path / "log"
    with log.open("ab") as file:
        subprocess.run(
            [sys.executable, "-c", SAY_A_LOT],
            stdin=subprocess.DEVNULL,
            stderr=file,
            check=True,
            timeout=60,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        )

    assert log.stat().st_size == 100_000
    assert json.loads(log.read_bytes().split(b"\n")[0])["event"] == "said"

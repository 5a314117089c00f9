"""Structured logs: one JSON object a line, on standard error; the audit log is another stream."""

import json
import logging
import os
import re
import select
import stat
import sys
from typing import Any, BinaryIO, cast

import orjson
import structlog
from structlog.typing import Processor

STANDARD_ERROR = 2

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, as Python reads it from a file's name or a header that is not UTF-8."""

_SHARED: tuple[Processor, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


class UnhurriedStream:
    """Writes lines to a descriptor, and waits for nobody: what does not fit, or fails, is left out and counted.

    A full disk, or a pipe that nobody empties, must not hold up who has something to say, nor fail it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._blocks = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._lost = 0
        self._torn = False

    def write(self, line: bytes) -> int:
        """Write a line, after how many were left out, and return its length."""
        if self._lost and self._put(json_line({"event": "log.lost", "level": "warning", "lines": self._lost}) + b"\n"):
            self._lost = 0
        if self._lost or not self._put(line):
            self._lost += 1
        return len(line)

    def flush(self) -> None:
        """Do nothing: nothing is kept back."""

    def _put(self, line: bytes) -> bool:
        data = b"\n" + line if self._torn else line
        for start in range(0, len(data), select.PIPE_BUF):  # so much a pipe takes that is writable at all
            part = data[start : start + select.PIPE_BUF]
            written = self._put_part(part)
            if written:
                self._torn = True
            if written < len(part):
                return False
        self._torn = False
        return True

    def _put_part(self, part: bytes) -> int:
        try:
            return 0 if self._blocks and not self._poll.poll(0) else os.write(self._descriptor, part)
        except OSError:
            return 0


class _Handler(logging.Handler):
    """Writes what libraries say to such a stream."""

    def __init__(self, stream: UnhurriedStream) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self._stream.write(self.format(record).encode() + b"\n")


def set_up_logging(level: str) -> None:
    """Send structlog's events, and the warnings of libraries, to standard error as JSON lines."""
    number = logging.getLevelNamesMapping()[level.upper()]
    sys.stderr.flush()
    stream = UnhurriedStream(STANDARD_ERROR)
    structlog.configure(
        processors=[*_SHARED, structlog.processors.JSONRenderer(serializer=json_line)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(file=cast("BinaryIO", stream)),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_SHARED],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_text),
            ],
        )
    )
    # Libraries log requests and answers at DEBUG, and those hold tokens: warnings at most, whatever our level.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler])


def json_line(event: Any, **_options: Any) -> bytes:
    """Return an event as JSON, whatever texts are in it; what is no character stands there escaped.

    Objects stand there as they print: orjson would take a dataclass with a token apart.
    """
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except TypeError:  # orjson writes no surrogates, and no JSON may have half of a pair
        text = json.dumps(event, default=repr, ensure_ascii=False)
        return _SURROGATE.sub(_escaped, text).encode()


def _escaped(surrogate: re.Match[str]) -> str:
    return rf"\\u{ord(surrogate[0]):04x}"


def _text(event: Any, **_options: Any) -> str:
    return json_line(event).decode()

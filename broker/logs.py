"""Structured logs: one JSON object a line, on standard error; the audit log is another stream."""

import json
import logging
import re
import sys
from typing import Any

import orjson
import structlog
from structlog.typing import Processor

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, as Python reads it from a file's name or a header that is not UTF-8."""

_SHARED: tuple[Processor, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


def set_up_logging(level: str) -> None:
    """Send structlog's events, and the warnings of libraries, to standard error as JSON lines."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_SHARED, structlog.processors.JSONRenderer(serializer=json_line)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
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

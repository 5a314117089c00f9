"""Structured logs: one JSON object a line, on standard error; the audit log is another stream."""

import logging
import sys
from typing import Any

import orjson
import structlog
from structlog.typing import Processor

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
    """Return an event as JSON. Objects stand there as they print: orjson would take a dataclass with a token apart."""
    return orjson.dumps(event, default=repr, option=orjson.OPT_PASSTHROUGH_DATACLASS)


def _text(event: Any, **_options: Any) -> str:
    return json_line(event).decode()

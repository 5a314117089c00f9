"""Structured logs: one JSON object a line, on standard error; the audit log is another stream."""

import logging
import sys

import orjson
import structlog


def set_up_logging(level: str) -> None:
    """Send structlog's events, and the warnings of libraries, to standard error as JSON lines."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    # Libraries log requests and answers at DEBUG, and those hold tokens: warnings at most, whatever our level.
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr, format="%(message)s")

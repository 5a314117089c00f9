"""The trace of the request that is being answered, for all calls that are made for it.

A context variable, which each task inherits from the one that starts it: so it need not be handed through every
service, and what the broker does by itself has none.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from broker.model.trace import TraceContext

_CURRENT: ContextVar[TraceContext | None] = ContextVar("trace", default=None)
_NOTHING: Mapping[str, str] = {}

current = _CURRENT.get
"""Return the trace of the request that is being answered, or None."""


@contextmanager
def following(trace: TraceContext | None) -> Iterator[None]:
    """Let what is done in the block belong to a trace. A connection serves several requests: it ends with the block."""
    token = _CURRENT.set(trace)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def noted() -> Mapping[str, str]:
    """Return what logs and audit records say of the trace; nothing where there is none."""
    trace = current()
    return _NOTHING if trace is None else {"trace_id": trace.trace_id, "parent_id": trace.parent_id}


def exemplar() -> dict[str, str] | None:
    """Return by what a measured time is found among traces, where the caller records one."""
    trace = current()
    return {"trace_id": trace.trace_id} if trace is not None and trace.sampled else None

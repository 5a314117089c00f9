"""What ends a benchmark."""


class BenchError(RuntimeError):
    """The benchmark cannot be believed, or cannot run; the message says why."""

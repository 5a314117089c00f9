"""How commands fail: one sentence on stderr and an exit code that scripts can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from broker.cli.output import printable


class ExitCode(IntEnum):
    """What a command's end means."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNAUTHENTICATED = 3
    UNAVAILABLE = 4


class CommandError(Exception):
    """A command that cannot do what it was asked to; the message says what, why and what to do.

    ``retry_after`` is in seconds; 0 where nobody said.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.REFUSED, retry_after: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class RefusedError(CommandError):
    """The API server refused what was asked; it may have answered all the same to something less."""


def usage(message: str) -> CommandError:
    """Return the error for arguments that cannot be meant."""
    return CommandError(message, ExitCode.USAGE)


@contextmanager
def errors_shown() -> Iterator[None]:
    """Print a CommandError to stderr and exit with its code."""
    try:
        yield
    except CommandError as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        raise typer.Exit(error.code) from None

"""How a new secret reaches whoever asked for it: in a file, or shown once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from broker.cli.secret_file import written
from broker.identity.secret import digest, format_digest, generate
from broker.model.sensitive import Sensitive


@dataclass(frozen=True, slots=True)
class Handover:
    """A new secret and the file that takes it; without a file it is shown."""

    secret: Sensitive
    file: Path | None

    @property
    def digest(self) -> str:
        """The secret's digest, as the TokenClient carries it."""
        return format_digest(digest(self.secret.reveal()))

    def show(self) -> None:
        """Print the secret alone to stdout, so that a pipe can take it, or say where it is."""
        if self.file is not None:
            typer.echo(f"the secret is in {self.file}", err=True)
            return
        typer.echo("warning: this secret is shown once and kept nowhere; store it now:", err=True)
        typer.echo(self.secret.reveal())

    def discard(self) -> None:
        """Take the file away: the secret is nobody's."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def document(self) -> dict[str, str]:
        """Return where the secret is, or the secret, as a part of a JSON answer."""
        if self.file is not None:
            return {"secretFile": str(self.file)}
        return {"secret": self.secret.reveal()}


@contextmanager
def new_secret(file: Path | None) -> Iterator[Handover]:
    """Yield a new secret, written to the file if there is one; the file goes away again where the body fails.

    Written first, so that no client is made whose secret nobody has. Raises CommandError.
    """
    handover = Handover(generate(), file)
    if file is None:
        yield handover
        return
    with written(file, handover.secret):
        yield handover

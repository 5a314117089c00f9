"""A file with a token: read, or replaced in one step, so that readers see the old one or the new one, whole."""

import os
import sys
import tempfile
from pathlib import Path

from broker.cli.errors import CommandError, usage
from broker.model.sensitive import Sensitive

MAX_TOKEN_CHARACTERS = 65536


def read_token(file: str) -> Sensitive:
    """Return what a file, or stdin for ``-``, holds. Raises CommandError, also for a token in the file's place."""
    if file.startswith("eyJ"):
        raise usage("give the token on stdin or in a file: process lists and histories show arguments.")
    try:
        if file == "-":
            return Sensitive(sys.stdin.read(MAX_TOKEN_CHARACTERS).strip())
        with Path(file).open(encoding="utf-8") as opened:
            return Sensitive(opened.read(MAX_TOKEN_CHARACTERS).strip())
    except (OSError, UnicodeDecodeError):
        raise usage(f"{file} cannot be read as a file with a token.") from None


def replaced(path: Path, content: Sensitive) -> None:
    """Write a file for its owner only (0600), and put it in the place of the one that is there. Raises CommandError."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with the mode 0600
    except OSError as error:
        raise _not_written(path, error) from None
    new = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content.reveal())
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise _not_written(path, error) from None
    finally:
        new.unlink(missing_ok=True)


def _not_written(path: Path, error: OSError) -> CommandError:
    return CommandError(f"{path} cannot be written: {error.strerror}.")

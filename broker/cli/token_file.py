"""A file with a token, replaced in one step: its readers see the old one or the new one, whole."""

import os
import tempfile
from pathlib import Path

from broker.cli.errors import CommandError
from broker.model.sensitive import Sensitive


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

"""Files with one secret: written for their owner only, read without their line end."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.cli.errors import CommandError, usage
from broker.identity.secret import well_formed
from broker.model.sensitive import Sensitive

_MAX_BYTES = 4096
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


@contextmanager
def written(path: Path, secret: Sensitive) -> Iterator[None]:
    """Write a secret to a new file, and take the file away again where the body fails.

    A file that exists is never touched. Raises CommandError.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret.reveal())
    except FileExistsError:
        raise usage(f"{path} exists already and is not overwritten: name another --secret-file.") from None
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.") from None
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def read(path: Path) -> Sensitive:
    """Return the secret in a file. Raises CommandError(usage) where there is none."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise usage(f"the secret file {path} cannot be read: {reason}.") from None
    return checked(text.strip(), f"what {path} holds")


def read_jwt(path: Path) -> Sensitive:
    """Return the JWT in a file. Raises CommandError(usage) where there is none."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise usage(f"the JWT file {path} cannot be read: {reason}.") from None
    if not _JWT.fullmatch(text):
        raise usage(f"what {path} holds is not a JWT.")
    return Sensitive(text)


def checked(text: str, what: str) -> Sensitive:
    """Return a secret whose checksum is right: nothing was cut off. Raises CommandError(usage)."""
    if not well_formed(text):
        raise usage(f"{what} is not a secret that tokenbroker made: is a part of it missing?")
    return Sensitive(text)

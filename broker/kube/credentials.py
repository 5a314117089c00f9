"""The broker's own token and the authorities that it trusts, as their files say."""

import asyncio
import re
import ssl
from pathlib import Path

LOOK_AGAIN_SECONDS = 1.0
"""The files are read no more often than that, however many calls are refused."""

_TOKEN = re.compile(r"[!-~]+")


class Credentials:
    """What the files held when they were last read. ``token`` is empty before :meth:`refresh`.

    ``tls`` trusts the authorities of the CA file, and no earlier ones: connections that are open stay so.
    ``version`` goes up when a file was found to hold something else.
    """

    def __init__(self, ca_file: Path, token_file: Path) -> None:
        self._ca_file = ca_file
        self._token_file = token_file
        self._ca = ca_file.read_bytes()
        self._looked: float | None = None
        self.tls = ssl.create_default_context(cafile=str(ca_file))
        self.token = ""
        self.version = 0

    def refresh(self) -> None:
        """Read both files. Raises OSError where they are gone or hold something else; what was read before stays."""
        # What is no ASCII becomes a sign that no token has: a UnicodeDecodeError would carry the whole file.
        token = self._token_file.read_text(encoding="ascii", errors="replace").strip()
        if not _TOKEN.fullmatch(token):
            raise OSError(f"{self._token_file} does not hold one token")
        if token != self.token:
            self.token = token
            self.version += 1
        ca = self._ca_file.read_bytes()
        if ca != self._ca:
            self.tls = ssl.create_default_context(cafile=str(self._ca_file))
            self._ca = ca
            self.version += 1

    def look_again(self) -> None:
        """Read them because the API server did not take the token, or could not prove who it is."""
        now = asyncio.get_running_loop().time()
        if self._looked is not None and now - self._looked < LOOK_AGAIN_SECONDS:
            return
        self._looked = now
        try:
            self.refresh()
        except OSError:
            return  # kubelet swaps the files; the old credentials serve until the new ones are there

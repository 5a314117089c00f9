"""What may stand in a request line (RFC 9112, 3.2)."""

import re

_TARGET = re.compile(r"/[!-~]*")


def is_target(path: str) -> bool:
    """Tell whether a path is one that is encoded already: it has no spaces, and does not end its line."""
    return _TARGET.fullmatch(path) is not None

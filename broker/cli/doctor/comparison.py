"""How an object of the API differs from the manifest that it was made from. Pure."""

from collections.abc import Iterator
from typing import Any

_DEFAULTS: dict[str, Any] = {
    "matchPolicy": "Equivalent",
    "namespaceSelector": {},
    "objectSelector": {},
    "scope": "*",
}
"""What the API server adds, and what means nothing; any other addition may be a hole."""


def differences(wanted: Any, found: Any, where: str) -> Iterator[str]:
    """Yield the places, as paths, where what was found is not what was wanted."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            if key not in found or (key not in wanted and _DEFAULTS.get(key, found) != found[key]):
                yield f"{where}.{key}"
            elif key in wanted:
                yield from differences(wanted[key], found[key], f"{where}.{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (want, have) in enumerate(zip(wanted, found, strict=True)):
            yield from differences(want, have, f"{where}[{number}]")
    elif wanted != found:
        yield where

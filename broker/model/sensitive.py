"""A string that does not print."""

from typing import Final


class Sensitive:
    """Holds a token or secret; prints as ``***`` and is opened by :meth:`reveal` alone.

    It has no equality on purpose: secrets are compared with :func:`hmac.compare_digest`.
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: str) -> None:
        self._value: Final = value

    def reveal(self) -> str:
        """Return the value itself; the caller must not log, store or print it."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        raise TypeError("sensitive values are compared with hmac.compare_digest")

    def __reduce__(self) -> str:
        raise TypeError("sensitive values are not pickled")

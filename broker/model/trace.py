"""To which trace a request belongs: the header traceparent (https://www.w3.org/TR/trace-context/). Pure."""

import re
from dataclasses import dataclass
from typing import Self

HEADER = re.compile(r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})")
MAX_CHARACTERS = 512
FIRST, NEVER = "00", "ff"
"""The version that is known, and the one that must not be used."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A trace and the span in it that called. All are of hexadecimal digits, in lower case."""

    trace_id: str
    parent_id: str
    flags: str

    @classmethod
    def parse(cls, header: str) -> Self | None:
        """Return what a header says; None where it says nothing by the standard: then it is as if there was none.

        What later versions add behind another dash is left out, as the standard has it.
        """
        found = HEADER.match(header) if len(header) <= MAX_CHARACTERS else None
        if found is None or found["version"] == NEVER:
            return None
        rest = header[found.end() :]
        if rest and (found["version"] == FIRST or not rest.startswith("-")):
            return None
        if not found["trace"].strip("0") or not found["parent"].strip("0"):
            return None
        return cls(found["trace"], found["parent"], found["flags"])

    @property
    def sampled(self) -> bool:
        """Tell whether its caller records it."""
        return bool(int(self.flags, 16) & 1)

    def header(self) -> str:
        """Return the header by which it is passed on: the broker is no span of its own."""
        return f"{FIRST}-{self.trace_id}-{self.parent_id}-{self.flags}"

"""A status as the registry keeps it: as JSON, a fifth of what its decoded objects take in memory."""

from collections.abc import ItemsView, Iterator, Mapping
from typing import Any

import orjson


class KeptStatus(Mapping[str, Any]):
    """Reads like the object that it was made of, and is decoded each time: it is read seldom, and kept for long."""

    __slots__ = ("_json",)

    def __init__(self, status: Mapping[str, Any]) -> None:
        encoded = orjson.dumps(status)
        # What orjson returns holds on to the room that it wrote in.
        self._json = encoded[:1] + encoded[1:]

    def decoded(self) -> dict[str, Any]:
        """Return a new object."""
        document: dict[str, Any] = orjson.loads(self._json)
        return document

    def items(self) -> ItemsView[str, Any]:
        """Return all of it, decoded once: for whoever reads more than one thing."""
        return self.decoded().items()

    def __getitem__(self, key: str) -> Any:
        return self.decoded()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.decoded())

    def __len__(self) -> int:
        return len(self.decoded())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, KeptStatus):
            return self._json == other._json or self.decoded() == other.decoded()
        return self.decoded() == other

    __hash__ = None  # type: ignore[assignment]  # as that of every mapping that is not frozen

    def __repr__(self) -> str:
        return f"KeptStatus({self.decoded()!r})"

"""What stands next to a token in Vault."""

from dataclasses import dataclass
from datetime import datetime

from broker.model.client import ClientId
from broker.model.token import Anchor


@dataclass(frozen=True, slots=True)
class RetiredAnchor:
    """The anchor of a version that was replaced, kept for readers that still hold its token.

    It is deleted after ``until``.
    """

    anchor: Anchor
    until: datetime


@dataclass(frozen=True, slots=True)
class CopyLabel:
    """What is written next to a version, as Vault's custom_metadata.

    ``server`` tells clusters apart that share a name by mistake. ``service_account``, ``audience`` and
    ``ttl_seconds`` are what was asked for: where the grant says something else by now, the copy is replaced.
    ``root_uid`` is that of the anchor below which the versions' hang: where that one is gone, so is the token's worth.
    ``account_uid`` is that of the ServiceAccount: one that was made again is another one. Both may be empty.
    """

    client_uid: str
    client: ClientId
    grant: str
    server: str
    service_account: str
    audience: str
    ttl_seconds: int
    version: int
    issued_at: datetime
    expires_at: datetime
    jti: str
    anchor: Anchor
    retired: tuple[RetiredAnchor, ...] = ()
    root_uid: str = ""
    account_uid: str = ""

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """All anchors that it names: that of its version, and those of versions before it."""
        return self.anchor, *(one.anchor for one in self.retired)


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """What Vault's metadata says of a path. ``managed`` tells whether the broker made it.

    ``label`` is None where it is not the broker's, or cannot be read. It may describe another version than the
    current one, where a write was cut short or somebody else wrote. ``intact`` is False where the current
    version's data was deleted or destroyed, or never written.
    """

    current_version: int
    managed: bool
    label: CopyLabel | None
    intact: bool

"""Tokens in Vault's KV engine, version 2 (https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2).

The broker's policy lets it write data and not read it: whatever it has to know is in the metadata.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from hvac.api.auth_methods import Token
from hvac.api.secrets_engines import KvV2

from broker.errors import BrokerError, Reason
from broker.model.sensitive import Sensitive
from broker.model.stored_copy import CopyLabel, StoredCopy
from broker.ports import Clock
from broker.vault.answer import Answer, denied, unavailable
from broker.vault.label import BROKER, MANAGED_BY, read_label, write_label
from broker.vault.transport import ApiAdapter, Send


class KvStore:
    """One KV mount; implements :class:`broker.ports.VaultStore`. ``send`` makes calls that are logged in."""

    def __init__(self, send: Send, mount: str, clock: Clock) -> None:
        self._api = KvV2(ApiAdapter(send))
        self._token = Token(ApiAdapter(send))
        self._mount = mount
        self._clock = clock

    async def inspect(self, path: tuple[str, ...]) -> StoredCopy | None:
        """Return what the metadata says; see :meth:`broker.ports.VaultStore.inspect`."""
        answer: Answer = await self._api.read_secret_metadata(_joined(path), mount_point=self._mount)
        return None if answer.status == HTTPStatus.NOT_FOUND else _stored_copy(answer, self._clock.now())

    async def write(self, path: tuple[str, ...], data: Mapping[str, Sensitive | str], cas: int) -> int:
        """Write a new version and return its number; see :meth:`broker.ports.VaultStore.write`."""
        revealed = {key: value.reveal() if isinstance(value, Sensitive) else value for key, value in data.items()}
        answer: Answer = await self._api.create_or_update_secret(
            _joined(path), revealed, cas=cas, mount_point=self._mount
        )
        return _version(_found(answer, self._mount))

    async def label(self, path: tuple[str, ...], label: CopyLabel) -> None:
        """Describe the version that was written; see :meth:`broker.ports.VaultStore.label`."""
        answer: Answer = await self._api.update_metadata(
            _joined(path), custom_metadata=write_label(label), mount_point=self._mount
        )
        _found(answer, self._mount)

    async def remove(self, path: tuple[str, ...]) -> None:
        """Delete all versions and the metadata; nothing there is no error."""
        await self._api.delete_metadata_and_all_versions(_joined(path), mount_point=self._mount)

    async def children(self, path: tuple[str, ...]) -> list[str]:
        """Return the names below a path, folders ending in a slash; empty where there are none."""
        answer: Answer = await self._api.list_secrets(_joined(path), mount_point=self._mount)
        if answer.status == HTTPStatus.NOT_FOUND:
            return []
        names = _data(answer).get("keys")
        if not isinstance(names, list):
            raise _unreadable(answer)
        return [str(name) for name in names]

    async def reach_active(self) -> None:
        """Renew the broker's own token, which is a write; see :meth:`broker.ports.VaultStore.reach_active`.

        A Vault that refuses it has answered all the same.
        """
        try:
            await self._token.renew_self()  # type: ignore[no-untyped-call]
        except BrokerError as error:
            if error.reason is not Reason.VAULT_DENIED:
                raise


def _joined(path: tuple[str, ...]) -> str:
    """Return a path for hvac, which percent-encodes everything in it but slashes.

    Raises BrokerError(vault_denied) for a segment that would not stay one: Vault takes an encoded slash for a
    slash, and dots for a relative path.
    """
    for segment in path:
        if segment in {"", ".", ".."} or "/" in segment:
            raise denied(f"{segment[:64]!r} cannot be one part of a path in Vault: rename it.")
    return "/".join(path)


def _stored_copy(answer: Answer, now: datetime) -> StoredCopy:
    metadata = _data(answer)
    try:
        current = int(metadata["current_version"])
        custom: Mapping[str, str] = metadata["custom_metadata"] or {}
        version = (metadata["versions"] or {}).get(str(current))
        return StoredCopy(
            current_version=current,
            managed=custom.get(MANAGED_BY) == BROKER,
            label=read_label(custom),
            intact=version is not None and not version["destroyed"] and not _deleted(version, now),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _unreadable(answer) from None


def _deleted(version: Mapping[str, str], now: datetime) -> bool:
    """Tell whether a version was deleted; where the engine has ``delete_version_after``, the time is ahead."""
    text = version["deletion_time"]
    return bool(text) and datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC) <= now


def _version(answer: Answer) -> int:
    version = _data(answer).get("version")
    if not isinstance(version, int):
        raise _unreadable(answer)  # version 1 of the engine answers a write with nothing
    return version


def _found(answer: Answer, mount: str) -> Answer:
    if answer.status == HTTPStatus.NOT_FOUND:
        raise denied(f"Vault has no KV engine of version 2 at {mount}: enable it, or mend vault.mount.")
    return answer


def _data(answer: Answer) -> Mapping[str, Any]:
    data = answer.body.get("data")
    return data if isinstance(data, dict) else {}


def _unreadable(answer: Answer) -> Exception:
    return unavailable(
        f"Vault's answer to {answer.method} {answer.path} is not that of a KV engine of version 2: "
        "check vault.address and vault.mount."
    )

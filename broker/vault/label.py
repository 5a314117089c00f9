"""A copy's label as Vault keeps it: custom_metadata, a flat map of short strings.

Vault allows 64 keys, and values of 1 to 512 bytes
(https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#custom_metadata).
"""

import re
from collections.abc import Mapping
from datetime import datetime

from broker.model.anchor import ANCHOR_NAME
from broker.model.client import ClientId
from broker.model.stored_copy import CopyLabel, RetiredAnchor
from broker.model.times import timestamp
from broker.model.token import Anchor

MANAGED_BY = "managed-by"
BROKER = "tokenbroker"
_RETIRED = "retired-anchor-"
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_UID = re.compile(r"[0-9A-Za-z-]{1,64}", re.ASCII)


def write_label(label: CopyLabel) -> dict[str, str]:
    """Return the custom_metadata of a label."""
    metadata = {
        MANAGED_BY: BROKER,
        "client": str(label.client),
        "client-uid": label.client_uid,
        "grant": label.grant,
        "server": label.server,
        "service-account": label.service_account,
        "audience": label.audience,
        "requested-ttl-seconds": str(label.ttl_seconds),
        "version": str(label.version),
        "issued-at": timestamp(label.issued_at),
        "expires-at": timestamp(label.expires_at),
        "jti": label.jti,
        "anchor-name": label.anchor.name,
        "anchor-uid": label.anchor.uid,
        "anchor-root-uid": label.root_uid,
        "account-uid": label.account_uid,
    }
    retired = {f"{_RETIRED}{number}": _write_retired(one) for number, one in enumerate(label.retired, 1)}
    return {key: value for key, value in (metadata | retired).items() if value}  # Vault refuses empty values


def read_label(metadata: Mapping[str, str]) -> CopyLabel | None:
    """Return the label that custom_metadata holds; None where it is not the broker's or was tampered with."""
    try:
        return _read(metadata) if metadata.get(MANAGED_BY) == BROKER else None
    except (KeyError, ValueError):
        return None


def _read(metadata: Mapping[str, str]) -> CopyLabel:
    client = ClientId.parse(metadata["client"])
    if client is None:
        raise ValueError("not a client's id")
    return CopyLabel(
        client_uid=metadata["client-uid"],
        client=client,
        grant=metadata["grant"],
        server=metadata["server"],
        service_account=metadata["service-account"],
        audience=metadata["audience"],
        ttl_seconds=int(metadata["requested-ttl-seconds"]),
        version=int(metadata["version"]),
        issued_at=_moment(metadata["issued-at"]),
        expires_at=_moment(metadata["expires-at"]),
        jti=metadata.get("jti", ""),
        anchor=_anchor(metadata["anchor-name"], metadata["anchor-uid"]),
        retired=tuple(_read_retired(metadata[key]) for key in _retired_keys(metadata)),
        root_uid=metadata.get("anchor-root-uid", ""),
        account_uid=metadata.get("account-uid", ""),
    )


def _retired_keys(metadata: Mapping[str, str]) -> list[str]:
    return sorted((key for key in metadata if key.startswith(_RETIRED)), key=lambda key: int(key[len(_RETIRED) :]))


def _write_retired(retired: RetiredAnchor) -> str:
    return f"{retired.anchor.name} {retired.anchor.uid} until {timestamp(retired.until)}"


def _read_retired(text: str) -> RetiredAnchor:
    name, uid, _, until = text.split(" ")
    return RetiredAnchor(_anchor(name, uid), _moment(until))


def _anchor(name: str, uid: str) -> Anchor:
    """Return an anchor that may be deleted because a label names it: by its UID, so only that very one."""
    if not ANCHOR_NAME.fullmatch(name) or not _UID.fullmatch(uid):
        raise ValueError("not an anchor")
    return Anchor(name, uid)


def _moment(text: str) -> datetime:
    if not _MOMENT.fullmatch(text):
        raise ValueError("not a time as the broker writes it")
    return datetime.fromisoformat(text)

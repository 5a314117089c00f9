"""What each anchor is for, and how it is called. Pure.

An anchor is a Secret without data that tokens are bound to: when it is deleted, the API server refuses them within
seconds. Anchors form one chain of owners, so that the garbage collector deletes whatever hangs below one that went,
and the broker needs no right to list Secrets::

    TokenClient -> grant -> bucket -> token     what is handed out; bucket and token where the grant revokes by Token
    TokenClient -> vault -> version             what tokens in Vault are bound to: a new one where one is replaced early
    TokenClient -> trial                        what the broker tries a grant out with

Names are computed and never remembered: a broker that was started again finds what the one before has made. They are
hashes of the TokenClient's UID, so that nobody can prepare one for a client to come. A name below another anchor has a
part of that one's UID in it: where the upper one was deleted and made again, nothing is found that is about to go.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from broker.model.token import Anchor

ANCHOR_TYPE = "tokenbroker.dev/anchor"
ANCHOR_LABEL = "tokenbroker.dev/anchor"
NAME_PREFIX = "tokenbroker-anchor-"
ANCHOR_NAME = re.compile(NAME_PREFIX + r"[a-z2-7]{24}(-[a-z0-9-]{1,64})?", re.ASCII)
TOKEN_ID = re.compile(r"[0-9a-f]{24}", re.ASCII)
"""How a token that has an anchor of its own is called; a ``jti`` of the API server never looks like this."""


class Named(Protocol):
    """A grant as far as its anchors' names go; it may be one that a client had once."""

    @property
    def name(self) -> str:
        """The grant's name."""

    @property
    def service_account(self) -> str:
        """The account whose tokens it gives."""


class AnchorKind(StrEnum):
    """What an anchor is for: the value of its label :data:`ANCHOR_LABEL`."""

    TRIAL = "trial"
    GRANT = "grant"
    BUCKET = "bucket"
    TOKEN = "token"  # noqa: S105 - a kind of anchor
    VAULT = "vault"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class AnchorId:
    """One anchor, made already or not. ``account`` is the ServiceAccount whose tokens are bound to it."""

    kind: AnchorKind
    name: str
    account: str


def trial_anchor(client_uid: str, grant: Named) -> AnchorId:
    """Return the anchor that a grant is tried out with."""
    return _top(AnchorKind.TRIAL, client_uid, grant)


def grant_anchor(client_uid: str, grant: Named) -> AnchorId:
    """Return the anchor of all that is handed out for a grant; another account of the same grant has another one."""
    return _top(AnchorKind.GRANT, client_uid, grant)


def vault_anchor(client_uid: str, grant: Named) -> AnchorId:
    """Return the anchor above those of a grant's versions in Vault."""
    return _top(AnchorKind.VAULT, client_uid, grant)


def bucket_anchor(of: AnchorId, made: Anchor, number: int) -> AnchorId:
    """Return the anchor above those of tokens that were handed out in one period of time."""
    return AnchorId(AnchorKind.BUCKET, f"{of.name}-{_part(made.uid)}-b{number}", of.account)


def token_anchor(of: AnchorId, token_id: str) -> AnchorId:
    """Return the anchor of one token; its name is known without that of its bucket."""
    return AnchorId(AnchorKind.TOKEN, f"{of.name}-t{token_id}", of.account)


def version_anchor(of: AnchorId, made: Anchor, version: int) -> AnchorId:
    """Return the anchor of a version in Vault.

    By number and not at random, so that an attempt after a crash finds the anchor of the one before.
    """
    return AnchorId(AnchorKind.VERSION, f"{of.name}-{_part(made.uid)}-v{version}", of.account)


def is_version(name: str, of: AnchorId, made_uid: str) -> bool:
    """Tell whether :func:`version_anchor` calls an anchor so, of whichever version."""
    before, _, number = name.rpartition("-v")
    return before == f"{of.name}-{_part(made_uid)}" and number.isdecimal()


def is_below(name: str, top: AnchorId) -> bool:
    """Tell whether an anchor of that name is the given one or hangs below it."""
    return name == top.name or name.startswith(f"{top.name}-")


def token_id_of(name: str, top: AnchorId) -> str | None:
    """Return the id of the token whose anchor below a grant's has that name, or None where it has none of its own."""
    token_id = name.removeprefix(f"{top.name}-t")
    return token_id if is_below(name, top) and TOKEN_ID.fullmatch(token_id) else None


def _top(kind: AnchorKind, client_uid: str, grant: Named) -> AnchorId:
    text = f"{client_uid}/{kind}/{grant.name}/{grant.service_account}"
    digest = hashlib.sha256(text.encode()).digest()[:15]
    return AnchorId(kind, NAME_PREFIX + base64.b32encode(digest).decode().lower(), grant.service_account)


def _part(made_uid: str) -> str:
    return made_uid[:8].lower()

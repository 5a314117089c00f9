"""The clients of these histories, and what they are granted."""

from broker.model.client import Client, ClientId, Expect, Grant, Proofs, Revocation, TtlRange, VaultCopy
from broker.model.proof import ProvedBy
from broker.model.vault_path import CopyKey
from tests.model.kubernetes import NAMESPACE
from tests.support.rotation import PLACE

WEB, JOB = ClientId(NAMESPACE, "web"), ClientId(NAMESPACE, "job")
TTL = 7200
RENEW_BEFORE = {"kept": 2400, "both": 4200}
"""How long before its end a copy is replaced, by the name of its grant, and how slowly its readers may look: those of
``both`` may still hold the version before when the next one's time has come."""

BY = ProvedBy("clientSecret", "")
ACCOUNTS = ("reporter", "other")


def path_of(client_id: ClientId, grant: str) -> tuple[str, ...]:
    """Return where a grant's copy is."""
    return PLACE.path(CopyKey(client_id, grant))


def grants(shapes: tuple[tuple[str, str], ...]) -> tuple[Grant, ...]:
    """Return grants by kind and account.

    Those called ``kept`` and ``both`` are in Vault, tokens of ``single`` and ``both`` end one by one, and those of
    ``reused`` are handed out again; ``plain`` has nothing of all that.
    """
    deny = Expect((), ("get secrets",))
    return tuple(
        Grant(
            kind,
            account,
            (),
            TtlRange(900, 3600),
            VaultCopy(TTL, RENEW_BEFORE[kind]) if kind in RENEW_BEFORE else None,
            Revocation.TOKEN if kind in {"single", "both"} else Revocation.GRANT,
            deny,
            30 if kind == "reused" else 0,
        )
        for kind, account in shapes
    )


def new_client(client_id: ClientId, uid: str, shapes: tuple[tuple[str, str], ...]) -> Client:
    """Return a client that was just registered."""
    proofs = Proofs(secret_digests=(b"x" * 32,))
    return Client(client_id, uid, 1, "", None, suspended=False, proofs=proofs, grants=grants(shapes))

"""What the broker's codes and the reasons of its conditions mean, and what to do. Pure.

The codes are explained once, in docs/errors.md, which is shipped with the command.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from broker.model.client import ClientId
from broker.model.status import camel

_ROW = re.compile(r"^\| `(\w+)` \| \d+ \| (.+?) \| (.+?) \|$", re.MULTILINE)
_PLACES = re.compile(r"\b(CLIENT|NAMESPACE|NAME)\b")


@dataclass(frozen=True, slots=True)
class Meaning:
    """A sentence, and what to do about it, where CLIENT, NAME and NAMESPACE stand for those of the client."""

    text: str
    mend: str

    def line(self, client: ClientId) -> str:
        """Return what to do about it for one client."""
        names = {"CLIENT": str(client), "NAMESPACE": client.namespace, "NAME": client.name}
        return _PLACES.sub(lambda found: names[found[0]], self.mend)


CONDITIONS = {
    "Suspended": Meaning("The client is suspended, so nothing is issued.", "tokenbroker client resume CLIENT"),
    "Suspending": Meaning(
        "The client is suspended, and tokens of it could not be ended yet.",
        "tokenbroker client revoke-all CLIENT --now",
    ),
    "Expiring": Meaning(
        "The registration has ended, and tokens of it could not be ended yet.",
        "tokenbroker client revoke-all CLIENT --now",
    ),
    "Expired": Meaning(
        "The registration has ended.",
        """kubectl patch tokenclient NAME -n NAMESPACE --type merge -p '{"spec":{"notAfter":null}}'""",
    ),
    "VaultExpired": Meaning(
        "The token in Vault has expired, and readers get 401.",
        "see the condition VaultSynced, and run tokenbroker doctor --install with VAULT_ADDR set",
    ),
    "InvalidSpec": Meaning("The TokenClient is not valid.", "kubectl edit tokenclient NAME -n NAMESPACE"),
    "Pending": Meaning(
        "The broker has not tried it out yet.", "kubectl logs -n tokenbroker deployment/tokenbroker   # does it run?"
    ),
    "AccessMissing": Meaning(
        "The account lacks what the grant's expect.allow declares.",
        "tokenbroker doctor --client CLIENT --can 'VERB RESOURCE -n NAMESPACE'   # prints the Role that gives it",
    ),
    "RulesIncomplete": Meaning(
        "An authorizer of the cluster cannot list its rules, so what the account may do could not be verified.",
        "tokenbroker doctor --client CLIENT --can 'VERB RESOURCE -n NAMESPACE'   # asks the authorizer itself",
    ),
    "ProofNotAccepted": Meaning(
        "The broker's configuration does not take one of the client's proofs.",
        "list the issuer in oidc.issuers, set listen.tls.client_ca_file, or change the TokenClient's authentication",
    ),
}
"""Reasons of conditions that are no code of an error."""


def codes(document: str) -> dict[str, Meaning]:
    """Return what docs/errors.md says about each code."""
    return {code: Meaning(meaning, remedy) for code, meaning, remedy in _ROW.findall(document)}


def condition_meaning(reason: str, known: Mapping[str, Meaning]) -> Meaning | None:
    """Return what a condition's reason means, or None for one of another release."""
    by_condition = {camel(code): meaning for code, meaning in known.items()}
    return CONDITIONS.get(reason) or by_condition.get(reason)

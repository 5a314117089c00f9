"""What operators see on a TokenClient, made from what the broker found out. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from broker.errors import Fault, Reason
from broker.model.account import account_user
from broker.model.client import Client, Proofs
from broker.model.condition import Condition, with_times
from broker.model.decision import standing
from broker.model.former_grants import FormerGrant, grants_left
from broker.model.prepared import Prepared
from broker.model.proof_policy import ProofPolicy, proof_problems, usable
from broker.model.times import timestamp
from broker.model.vault_status import VaultFacts, vault_columns

MAX_GRANTS = 16
"""How many grants the schema lets a status list: as many former ones as a client may have."""


ACCOUNT_FINDINGS = frozenset({Reason.ACCESS_NOT_AS_DECLARED, Reason.ACCOUNT_TOO_STRONG})
"""What looking at an account may come to; then nothing counts that was found out about it before."""

ENDING = ACCOUNT_FINDINGS | {Reason.LIMITS_EXCEEDED, Reason.GRANT_FORBIDDEN}
"""Findings that end what was handed out already: it should never have been, or not any more."""

_ENDED_IN_VAULT = "What is in Vault is worth nothing, for its tokens end with all others."


@dataclass(frozen=True, slots=True)
class AccessFacts:
    """What a grant's account may do, against what its owner expects.

    ``doubts`` are expectations that do not hold, or cannot be told, and stop nothing; ``certain`` is False where
    something cannot be told. ``strong``: it can make credentials of its own.
    """

    strong: bool = False
    certain: bool = True
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """What is known of one grant. ``rehearsed``: a mint was tried out; ``fault``: what it met, if anything.

    ``access`` is what was found out about the account at the last trial that got so far. ``prepared`` is by what the
    grant may be issued for, None where it may not; one that was changed since has to be looked at first.
    """

    rehearsed: bool = False
    fault: Fault | None = None
    vault: VaultFacts | None = None
    access: AccessFacts | None = None
    prepared: Prepared | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that goes into one status. ``client`` is None where the resource is not a valid one."""

    generation: int
    client: Client | None
    invalid: Fault | None = None
    grants: Mapping[str, GrantFacts] = field(default_factory=dict)
    proofs: ProofPolicy = field(default_factory=ProofPolicy)
    ended: frozenset[FormerGrant] = frozenset()
    """Grants that the client had once, and whose tokens have ended."""
    suspended: bool = False
    unended: tuple[str, ...] | None = None
    """Where it may have no token: what of its tokens lives yet, and why; None where nobody has tried to end them."""


def camel(reason: str) -> str:
    """Return a reason as conditions and Events write it: ``vault_denied`` becomes ``VaultDenied``."""
    return "".join(part.capitalize() for part in reason.split("_"))


def status_document(facts: Facts, now: datetime, previous: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole status. Transition times of conditions that did not change are kept from ``previous``."""
    facts = _as_they_count(facts, now)
    document: dict[str, Any] = {
        "observedGeneration": facts.generation,
        "conditions": [with_times(condition, facts.generation, now, previous) for condition in conditions(facts, now)],
    }
    if facts.client is not None:
        document["grants"] = _grants(facts, facts.client, previous)
        document.update(vault_columns(it.vault for it in facts.grants.values() if it.vault is not None))
    elif previous.get("grants"):  # whose tokens may have to be ended yet
        document["grants"] = [{**listed, "ready": False} for listed in previous["grants"]]
    return document


def listing_all(client: Client, previous: Mapping[str, Any], ended: frozenset[FormerGrant]) -> dict[str, Any]:
    """Return a status in which all grants are listed but those that ended, and which says nothing else than it did."""
    said = {entry.get("name"): entry for entry in previous.get("grants", ())}
    new = [_grant(client, grant.name, grant.service_account, GrantFacts()) for grant in client.grants]
    known = [said[it["name"]] if said.get(it["name"], {}).get("subject") == it["subject"] else it for it in new]
    left = [former for former in grants_left(previous, client.grants) if former not in ended]
    return {**previous, "grants": [*known, *(_grant(client, it.name, it.service_account, GrantFacts()) for it in left)]}


def is_known(facts: Facts, now: datetime) -> bool:
    """Tell whether enough is known for a status: all grants were tried out, where tokens may be had at all."""
    client = facts.client
    if client is None:
        return facts.unended is not None or not facts.suspended
    if standing(client, now) is not None:
        return facts.unended is not None
    return all(facts.grants.get(grant.name, GrantFacts()).rehearsed for grant in client.grants)


def _as_they_count(facts: Facts, now: datetime) -> Facts:
    """Return the facts without the times of copies in Vault whose tokens have ended, though nobody wrote over them."""
    client = facts.client
    over = client is not None and standing(client, now) is not None and not facts.unended
    grants = {
        name: replace(it, vault=it.vault.ended()) if it.vault and (over or _ends(it)) else it
        for name, it in facts.grants.items()
    }
    return replace(facts, grants=grants)


def _ends(facts: GrantFacts) -> bool:
    return facts.fault is not None and facts.fault.reason in ENDING


def _over(facts: Facts, now: datetime) -> Condition | None:
    """Return the condition Ready of a client that may have no token at all, or None."""
    client, alive = facts.client, " ".join(facts.unended or ())
    suspended = facts.suspended if client is None else client.suspended
    expired = client.not_after if client is not None and standing(client, now) is not None else None
    still = f"Nothing is issued, and its tokens live yet: {alive}"
    if suspended and alive:
        return Condition("Ready", "False", "Suspending", still)
    if suspended and client is not None:
        return Condition("Ready", "False", "Suspended", "spec.suspend is true: nothing is issued.")
    if expired and alive:
        return Condition("Ready", "False", "Expiring", still)
    return Condition("Ready", "False", "Expired", f"spec.notAfter was {timestamp(expired)}.") if expired else None


def _grants(facts: Facts, client: Client, previous: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return an entry a grant, and those of grants that went while their tokens have not ended.

    A broker that starts anew then sees which they are; so a grant shows its former account until then.
    """
    left = [former for former in grants_left(previous, client.grants) if former not in facts.ended]
    accounts = {former.name: former.service_account for former in left}
    entries = []
    for grant in client.grants:
        account = accounts.pop(grant.name, grant.service_account)
        known = facts.grants.get(grant.name, GrantFacts())
        if known.prepared is not None and known.prepared.grant != grant:
            known = replace(known, prepared=None)
        entries.append(_grant(client, grant.name, account, known))
    gone = [_grant(client, name, account, GrantFacts()) for name, account in accounts.items()]
    return [*entries[: MAX_GRANTS - len(gone)], *gone]


def conditions(facts: Facts, now: datetime) -> list[Condition]:
    """Return the conditions.

    Ready for all, Authorized for the right to mint, AccessVerified where a grant says what its account may do,
    VaultSynced where Vault is used, ProofsAccepted where there are other proofs than a secret.
    """
    if facts.client is None:
        fault = facts.invalid
        message = fault.message if fault else ""
        return [_over(facts, now) or Condition("Ready", "False", "InvalidSpec", message)]
    client, grants = facts.client, _as_they_count(facts, now).grants
    authorized = _authorized(client, grants)
    others = (
        _access_verified(client, grants),
        _vault_synced(client, grants, _over(facts, now)),
        _proofs_accepted(client, facts.proofs),
    )
    parts = [authorized, *(other for other in others if other is not None)]
    return [_ready(replace(facts, grants=grants), parts, now), *parts]


def _ready(facts: Facts, parts: list[Condition], now: datetime) -> Condition:
    client = facts.client
    over = _over(facts, now)
    if over is not None:
        return over
    expired = [name for name, grant in facts.grants.items() if grant.vault is not None and grant.vault.expired(now)]
    if expired:
        return Condition("Ready", "False", "VaultExpired", f"The token in Vault has expired: {', '.join(expired)}.")
    wrong = _not_true(parts, "Authorized")
    if wrong is not None:
        return Condition("Ready", wrong.status, wrong.reason, wrong.message)
    unproved = _not_true(parts, "ProofsAccepted")
    if unproved is not None and client is not None and not _reachable(client, facts.proofs):
        return Condition("Ready", "False", unproved.reason, unproved.message)
    return Condition("Ready", "True", "Ready", "Tokens are issued.")


def _not_true(parts: Iterable[Condition], kind: str) -> Condition | None:
    return next((part for part in parts if part.type == kind and part.status != "True"), None)


def _authorized(client: Client, grants: Mapping[str, GrantFacts]) -> Condition:
    for grant in client.grants:
        facts = grants.get(grant.name, GrantFacts())
        if facts.fault is not None:
            message = f"grant {grant.name}: {facts.fault.message}"
            return Condition("Authorized", "False", camel(facts.fault.reason), message)
        if not facts.rehearsed:
            return Condition("Authorized", "Unknown", "Pending", f"grant {grant.name} was not tried out yet.")
    return Condition("Authorized", "True", "Authorized", "The API server lets the broker mint for every grant.")


def _access_verified(client: Client, grants: Mapping[str, GrantFacts]) -> Condition | None:
    expecting = [grant for grant in client.grants if grant.expect.allow or grant.expect.deny]
    known = [(grant.name, grants.get(grant.name, GrantFacts())) for grant in expecting]
    for name, facts in known:
        if facts.fault is not None and facts.fault.reason is Reason.ACCESS_NOT_AS_DECLARED:
            reason = camel(facts.fault.reason)
            return Condition("AccessVerified", "False", reason, f"grant {name}: {facts.fault.message}")
    for name, facts in known:
        if facts.access is None:
            return Condition("AccessVerified", "Unknown", "Pending", f"grant {name} was not looked at yet.")
        if facts.access.doubts:
            status, reason = ("False", "AccessMissing") if facts.access.certain else ("Unknown", "RulesIncomplete")
            return Condition("AccessVerified", status, reason, f"grant {name}: {' '.join(facts.access.doubts)}")
    if not expecting:
        return None
    return Condition("AccessVerified", "True", "Verified", "The accounts may do what is expected, and nothing denied.")


def _vault_synced(client: Client, grants: Mapping[str, GrantFacts], over: Condition | None) -> Condition | None:
    kept = [grant for grant in client.grants if grant.vault is not None]
    if kept and over is not None:
        ended = f" {_ENDED_IN_VAULT}" if over.reason in {"Suspended", "Expired"} else ""
        return Condition("VaultSynced", "False", over.reason, f"{over.message}{ended}")
    for grant in kept:
        known = grants.get(grant.name, GrantFacts())
        if known.fault is not None and _ends(known):
            reason = camel(known.fault.reason)
            message = f"grant {grant.name}: {known.fault.message} {_ENDED_IN_VAULT}"
            return Condition("VaultSynced", "False", reason, message)
        facts = known.vault
        if facts is None:
            return Condition("VaultSynced", "Unknown", "Pending", f"grant {grant.name} is not in Vault yet.")
        if facts.fault is not None:
            message = f"grant {grant.name}: {facts.fault.message}"
            return Condition("VaultSynced", "False", camel(facts.fault.reason), message)
    if not kept:
        return None
    return Condition("VaultSynced", "True", "Synced", "Vault holds a current token for every grant that wants one.")


def _proofs_accepted(client: Client, policy: ProofPolicy) -> Condition | None:
    proofs = client.proofs
    problems = proof_problems(proofs, policy)
    if problems:
        return Condition("ProofsAccepted", "False", "ProofNotAccepted", " ".join(problems))
    if proofs == Proofs(secret_digests=proofs.secret_digests):
        return None
    return Condition("ProofsAccepted", "True", "Accepted", "The broker's configuration lets every proof count.")


def _reachable(client: Client, policy: ProofPolicy) -> bool:
    """Tell whether anybody can get at the client's tokens: by a proof, or in Vault."""
    return usable(client.proofs, policy) or any(grant.vault is not None for grant in client.grants)


def _grant(client: Client, name: str, account: str, facts: GrantFacts) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": name,
        "ready": facts.rehearsed and facts.fault is None,
        "subject": account_user(client.id.namespace, account),
    }
    if facts.prepared is not None:
        document |= {"anchorUID": facts.prepared.anchor.uid, "accountUID": facts.prepared.account_uid}
    strong = _strong(facts)
    if strong is not None:
        document["strong"] = strong
    if facts.vault is not None:
        document["vault"] = facts.vault.document()
    return document


def _strong(facts: GrantFacts) -> bool | None:
    """Tell whether the account is known to be strong; one that was refused for it is shown, too."""
    if facts.fault is not None and facts.fault.reason is Reason.ACCOUNT_TOO_STRONG:
        return True
    return None if facts.access is None else facts.access.strong

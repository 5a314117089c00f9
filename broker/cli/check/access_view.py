"""Who outside the cluster may do what in it, a line a grant. Pure."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields

from broker.cli.check.rbac import Binding, Rbac, account_subject, group_subjects
from broker.cli.client.proofs import described, digests, without_secrets
from broker.cli.manifests import Manifest
from broker.cli.output import printable
from broker.model.access import PolicyRule, Rules
from broker.model.strength import strong_reasons

_FORMULA = re.compile(r"(^\s*|[;,|\t]\s*)([=+\-@＝＋－＠])")  # noqa: RUF001 - spreadsheets take these for formulas, too
_NOTHING = "none"


@dataclass(frozen=True, slots=True)
class Row:
    """One grant. ``through`` names roles and where they hold, ``may`` is all that they say."""

    client: str
    owner: str
    proved_by: str
    grant: str
    account: str
    max_ttl: str
    audiences: str
    vault: str
    through: str
    may: str
    strong: str
    condition: str


TABLE = tuple(field.name.upper().replace("_", " ") for field in fields(Row) if field.name != "may")


def rows(token_clients: Iterable[Manifest], rbac: Rbac) -> Iterator[Row]:
    """Yield the lines of all clients."""
    for client in token_clients:
        for grant in client["spec"]["grants"]:
            yield _row(client, grant, rbac)


def _row(client: Manifest, grant: Manifest, rbac: Rbac) -> Row:
    metadata, spec, account = client["metadata"], client["spec"], grant["serviceAccount"]["name"]
    bindings = rbac.bound_to(account_subject(metadata["namespace"], account), *group_subjects(metadata["namespace"]))
    reasons = strong_reasons(Rules(tuple(rule for it in bindings for rule in rbac.rules.get(it.role, ()))))
    return Row(
        client=f"{metadata['namespace']}/{metadata['name']}",
        owner=spec.get("owner", _NOTHING),
        proved_by="; ".join(_proofs(spec.get("authentication"))),
        grant=grant["name"],
        account=account,
        max_ttl=grant["ttl"]["max"],
        audiences=", ".join(grant.get("audiences", [])) or "the API server",
        vault=_vault(client, grant),
        through="; ".join(dict.fromkeys(f"{it.role} {it.where}" for it in bindings if not it.shipped)) or _NOTHING,
        may="; ".join(dict.fromkeys(text for it in bindings for text in _said(it, rbac))),
        strong="; ".join(f"{it.what}: {it.why}" for it in reasons) or "no",
        condition=_ready(client),
    )


def _proofs(authentication: Sequence[Manifest] | None) -> Iterator[str]:
    secrets = digests(authentication)
    if secrets:
        yield f"clientSecret: {len(secrets)} digest{'s' if len(secrets) > 1 else ''}"
    for proof in without_secrets(authentication):
        yield f"{next(iter(proof))}: {', '.join(line.strip() for line in described(proof))}"
    if not authentication:
        yield "nothing: only readers of Vault"


def _vault(client: Manifest, grant: Manifest) -> str:
    if "vault" not in grant:
        return _NOTHING
    known: Iterable[Mapping[str, Manifest]] = client.get("status", {}).get("grants", [])
    paths = [it["vault"]["path"] for it in known if it["name"] == grant["name"] and "vault" in it]
    return str(paths[0]) if paths else "wanted, not there yet"


def _said(binding: Binding, rbac: Rbac) -> Iterator[str]:
    if binding.role not in rbac.rules:
        yield f"unknown: the {binding.role} cannot be read, or is not there"
    for rule in rbac.rules.get(binding.role, ()):
        yield f"{_rule(rule)} {binding.where}"


def _rule(rule: PolicyRule) -> str:
    groups = [it for it in rule.groups if it]
    suffix = f" of {','.join(groups)}" if groups else ""
    names = f" named {','.join(rule.names)}" if rule.names else ""
    return f"{','.join(rule.verbs)} {','.join(rule.urls or rule.resources)}{suffix}{names}"


def _ready(client: Manifest) -> str:
    conditions = client.get("status", {}).get("conditions", [])
    found = next((it for it in conditions if it["type"] == "Ready"), None)
    return f"{found['reason']} since {found['lastTransitionTime']}" if found else "not looked at yet"


def table_row(row: Row) -> list[str]:
    """Return a line under :data:`TABLE`: without every single rule, which no screen has room for."""
    return [getattr(row, field.name) for field in fields(row) if field.name != "may"]


def to_csv(found: Iterable[Row]) -> str:
    """Return CSV (RFC 4180) in which every cell is quoted and no spreadsheet finds a formula."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(field.name for field in fields(Row))
    writer.writerows([harmless(cell) for cell in astuple(row)] for row in found)
    return text.getvalue()


def harmless(cell: str) -> str:
    """Return a cell that a spreadsheet takes for text, wherever its reader thinks that a cell begins."""
    return _FORMULA.sub(r"\1'\2", printable(cell))

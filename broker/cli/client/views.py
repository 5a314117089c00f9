"""TokenClients as people read them. Pure."""

from collections.abc import Iterator
from datetime import datetime

from broker.cli.client.proofs import described, digests, without_secrets
from broker.cli.manifests import Manifest
from broker.cli.times import both, parse_time, relative, span
from broker.model.rate import Rate

COLUMNS = ("NAMESPACE", "NAME", "READY", "REASON", "GRANTS", "VAULT EXPIRES", "OWNER", "AGE")
_UNKNOWN = "-"


def row(found: Manifest, now: datetime) -> list[str]:
    """Return a TokenClient's line under :data:`COLUMNS`."""
    metadata, spec, status = found["metadata"], found["spec"], found.get("status", {})
    ready: Manifest = next((it for it in status.get("conditions", []) if it["type"] == "Ready"), {})
    expires = status.get("vaultNotAfter")
    return [
        metadata["namespace"],
        metadata["name"],
        ready.get("status", _UNKNOWN),
        ready.get("reason", _UNKNOWN),
        ", ".join(_named(grant, status) for grant in spec["grants"]),
        relative(parse_time(expires), now) if expires else _UNKNOWN,
        spec.get("owner", _UNKNOWN),
        span((now - parse_time(metadata["creationTimestamp"])).total_seconds()),
    ]


def _named(grant: Manifest, status: Manifest) -> str:
    known: Manifest = next((it for it in status.get("grants", []) if it["name"] == grant["name"]), {})
    return f"{grant['name']} (strong)" if known.get("strong") else str(grant["name"])


def details(found: Manifest, now: datetime) -> Iterator[str]:
    """Yield the lines that describe one TokenClient."""
    metadata, spec, status = found["metadata"], found["spec"], found.get("status", {})
    yield f"Client:     {metadata['namespace']}/{metadata['name']}"
    yield f"Owner:      {spec.get('owner', _UNKNOWN)}"
    yield f"Created:    {both(parse_time(metadata['creationTimestamp']), now)}"
    if spec.get("notAfter"):
        yield f"Ends:       {both(parse_time(spec['notAfter']), now)}"
    yield f"Suspended:  {'yes' if spec.get('suspend') else 'no'}"
    if spec.get("rate"):
        yield f"Rate:       {_rate(spec['rate'])}"
    yield from _proofs(spec.get("authentication"))
    known = {grant["name"]: grant for grant in status.get("grants", [])}
    for grant in spec["grants"]:
        yield from _grant(grant, known.get(grant["name"], {}), now)
    yield from _conditions(found, now)


def _rate(rate: Manifest) -> str:
    return str(Rate.of(rate["perMinute"], rate.get("burst")))


def _proofs(proofs: list[Manifest] | None) -> Iterator[str]:
    known = [digest[:19] for digest in digests(proofs)]
    yield f"Secrets:    {', '.join(known) + ' (digests)' if known else 'none'}"
    for proof in without_secrets(proofs):
        for position, line in enumerate(described(proof)):
            yield f"{'' if position else 'Proved by:':<11} {line}"
    if not proofs:
        yield "Proved by:  nothing: only Vault serves this client"


def _grant(grant: Manifest, known: Manifest, now: datetime) -> Iterator[str]:
    yield f"Grant {grant['name']}:"
    strong = ", strong: it can make credentials that no revocation ends" if known.get("strong") else ""
    yield f"  Account:    {grant['serviceAccount']['name']}{strong}"
    yield f"  TTL:        {grant['ttl']['default']}, at most {grant['ttl']['max']}"
    yield f"  Revocation: {grant.get('revocation', 'Grant')}"
    yield f"  Reuse:      {grant.get('reuse', '0s')}"
    yield f"  Audiences:  {', '.join(grant.get('audiences', [])) or 'the API server'}"
    if "vault" in grant:
        yield f"  Vault:      {_vault(known.get('vault', {}), now)}"


def _vault(copy: Manifest, now: datetime) -> str:
    if not copy:
        return "wanted, not there yet"
    parts = [f"{copy['path']} version {copy['version']}"]
    if "notAfter" in copy:
        parts.append(f"expires {both(parse_time(copy['notAfter']), now)}")
    if "renewalTime" in copy:
        parts.append(f"renewed {relative(parse_time(copy['renewalTime']), now)}")
    return ", ".join(parts)


def _conditions(found: Manifest, now: datetime) -> Iterator[str]:
    conditions = found.get("status", {}).get("conditions", [])
    yield "Conditions:" if conditions else "Conditions: none; the broker has not looked at this client yet"
    for it in conditions:
        since = span((now - parse_time(it["lastTransitionTime"])).total_seconds())
        yield f"  {it['type']}: {it['status']} ({it['reason']}, for {since}) {it['message']}"

"""Specifications of TokenClients that must be refused: by the schema, and by the broker where that was gone around."""

from typing import Any

DIGEST = "sha256:" + "0" * 64
OTHER_DIGEST = "sha256:" + "1" * 64
PROOF: dict[str, Any] = {"clientSecret": {"digests": [DIGEST]}}
GRANT: dict[str, Any] = {"serviceAccount": {"name": "reader"}}
GOOD: dict[str, Any] = {"authentication": [PROOF], "grants": [GRANT]}


def _granting(**changes: Any) -> dict[str, Any]:
    return GOOD | {"grants": [GRANT | changes]}


BAD: dict[str, dict[str, Any]] = {
    "no grants": {"authentication": [PROOF]},
    "empty grants": GOOD | {"grants": []},
    "nine grants": GOOD | {"grants": [GRANT | {"name": f"g{n}"} for n in range(9)]},
    "two grants of one name": GOOD | {"grants": [GRANT, GRANT]},
    "nobody can use it": {"grants": [GRANT]},
    "owner too long": GOOD | {"owner": "x" * 254},
    "owner is a number": GOOD | {"owner": 1},
    "suspend is a text": GOOD | {"suspend": "true"},
    "notAfter is no date": GOOD | {"notAfter": "tomorrow"},
    "notAfter is a number": GOOD | {"notAfter": 1798761600},
    "notAfter without a time": GOOD | {"notAfter": "2027-01-01"},
    "proof of no kind": GOOD | {"authentication": [{}]},
    "no digests": GOOD | {"authentication": [{"clientSecret": {"digests": []}}]},
    "three digests": GOOD | {"authentication": [{"clientSecret": {"digests": [f"sha256:{n:064x}" for n in range(3)]}}]},
    "one digest twice": GOOD | {"authentication": [{"clientSecret": {"digests": [DIGEST, DIGEST]}}]},
    "digest in capitals": GOOD | {"authentication": [{"clientSecret": {"digests": ["sha256:" + "A" * 64]}}]},
    "digest too short": GOOD | {"authentication": [{"clientSecret": {"digests": [DIGEST[:-1]]}}]},
    "two secrets proofs": GOOD | {"authentication": [PROOF, {"clientSecret": {"digests": [OTHER_DIGEST]}}]},
    "no account": GOOD | {"grants": [{}]},
    "account with a slash": _granting(serviceAccount={"name": "a/b"}),
    "account that climbs": _granting(serviceAccount={"name": ".."}),
    "account percent-encoded": _granting(serviceAccount={"name": "%2e%2e"}),
    "account with a line end": _granting(serviceAccount={"name": "reader\n"}),
    "account in capitals": _granting(serviceAccount={"name": "Reader"}),
    "account too long": _granting(serviceAccount={"name": "x" * 254}),
    "grant with a slash": _granting(name="a/b"),
    "grant with a dot": _granting(name="a.b"),
    "grant too long": _granting(name="x" * 64),
    "grant is a number": _granting(name=123),
    "grant without a name": _granting(name=""),
    "nine audiences": _granting(audiences=[f"a{n}" for n in range(9)]),
    "empty audience": _granting(audiences=[""]),
    "audience with a space": _granting(audiences=["a b"]),
    "audience with a line end": _granting(audiences=["a\n"]),
    "audience beyond ASCII": _granting(audiences=["ä"]),
    "audience too long": _granting(audiences=["x" * 257]),
    "TTL too short": _granting(ttl={"default": "9m59s"}),
    "TTL too long": _granting(ttl={"max": "24h1s"}),
    "default above maximum": _granting(ttl={"default": "2h", "max": "1h"}),
    "TTL empty": _granting(ttl={"default": ""}),
    "TTL a number": _granting(ttl={"max": 3600}),
    "TTL a bare number": _granting(ttl={"max": "3600"}),
    "TTL with a fraction": _granting(ttl={"max": "1.5h"}),
    "TTL below zero": _granting(ttl={"max": "-1h"}),
    "TTL with spaces": _granting(ttl={"max": "1h "}),
    "Vault TTL too short": _granting(vault={"ttl": "5m"}),
    "Vault TTL too long": _granting(vault={"ttl": "25h"}),
    "renewed too late": _granting(vault={"ttl": "1h", "renewBefore": "59s"}),
    "renewed all the time": _granting(vault={"ttl": "1h", "renewBefore": "1h"}),
}

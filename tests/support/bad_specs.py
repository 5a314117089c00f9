"""Specifications of TokenClients that must be refused: by the schema, and by the broker where that was gone around."""

from typing import Any

DIGEST = "sha256:" + "0" * 64
OTHER_DIGEST = "sha256:" + "1" * 64
PROOF: dict[str, Any] = {"clientSecret": {"digests": [DIGEST]}}
GRANT: dict[str, Any] = {"serviceAccount": {"name": "reader"}}
GOOD: dict[str, Any] = {"authentication": [PROOF], "grants": [GRANT]}


OIDC: dict[str, Any] = {"issuer": "https://issuer.example", "claims": {"sub": ["a"]}}
ACCOUNT: dict[str, Any] = {"namespace": "ci", "name": "runner", "uid": "0a1b-2c"}
JWK: dict[str, Any] = {"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "x": "AQAB", "y": "AQAB"}


RSA_JWK: dict[str, Any] = {"kty": "RSA", "alg": "RS256", "kid": "r", "n": "AQAB", "e": "AQAB"}


def _proved(**proof: Any) -> dict[str, Any]:
    return GOOD | {"authentication": [proof]}


def _oidc(**changes: Any) -> dict[str, Any]:
    return _proved(oidc={name: value for name, value in (OIDC | changes).items() if value is not None})


def _key(**changes: Any) -> dict[str, Any]:
    jwk = {name: value for name, value in (JWK | changes).items() if value is not None}
    return _proved(publicKeys={"jwks": {"keys": [jwk]}})


def _granting(**changes: Any) -> dict[str, Any]:
    return GOOD | {"grants": [GRANT | changes]}


PROOFS: dict[str, dict[str, Any]] = {
    "secret": PROOF,
    "OIDC": {"oidc": OIDC},
    "OIDC with all that there is": {"oidc": OIDC | {"audience": "a", "claims": {"https://a.example/b": ["1", "2"]}}},
    "account": {"serviceAccount": ACCOUNT},
    "EC key": {"publicKeys": {"jwks": {"keys": [JWK]}}},
    "RSA key": {
        "publicKeys": {"jwks": {"keys": [{"kty": "RSA", "alg": "RS256", "kid": "r", "n": "AQAB", "e": "AQAB"}]}}
    },
    "certificate by digest": {"certificate": {"sha256": ["0" * 64]}},
    "certificate by name": {"certificate": {"dnsName": "ci.shop.example"}},
}
"""One of each kind that must be accepted, by both."""

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
    "rate is a number": GOOD | {"rate": 60},
    "rate of nothing": GOOD | {"rate": {}},
    "rate without a minute": GOOD | {"rate": {"burst": 5}},
    "rate of none": GOOD | {"rate": {"perMinute": 0}},
    "rate below zero": GOOD | {"rate": {"perMinute": -1}},
    "rate too large": GOOD | {"rate": {"perMinute": 100_001}},
    "rate with a fraction": GOOD | {"rate": {"perMinute": 1.5}},
    "rate in words": GOOD | {"rate": {"perMinute": "60"}},
    "rate as a truth": GOOD | {"rate": {"perMinute": True}},
    "burst of none": GOOD | {"rate": {"perMinute": 60, "burst": 0}},
    "burst too large": GOOD | {"rate": {"perMinute": 60, "burst": 100_001}},
    "proof of no kind": GOOD | {"authentication": [{}]},
    "no digests": GOOD | {"authentication": [{"clientSecret": {"digests": []}}]},
    "three digests": GOOD | {"authentication": [{"clientSecret": {"digests": [f"sha256:{n:064x}" for n in range(3)]}}]},
    "one digest twice": GOOD | {"authentication": [{"clientSecret": {"digests": [DIGEST, DIGEST]}}]},
    "digest in capitals": GOOD | {"authentication": [{"clientSecret": {"digests": ["sha256:" + "A" * 64]}}]},
    "digest too short": GOOD | {"authentication": [{"clientSecret": {"digests": [DIGEST[:-1]]}}]},
    "two secrets proofs": GOOD | {"authentication": [PROOF, {"clientSecret": {"digests": [OTHER_DIGEST]}}]},
    "two kinds in one proof": _proved(**PROOF, oidc=OIDC),
    "five proofs": GOOD | {"authentication": [{"oidc": OIDC}] * 5},
    "two key sets": GOOD | {"authentication": [{"publicKeys": {"jwks": {"keys": [JWK]}}}] * 2},
    "OIDC without an issuer": _oidc(issuer=None),
    "OIDC over http": _oidc(issuer="http://issuer.example"),
    "OIDC issuer with a space": _oidc(issuer="https://issuer.example/ x"),
    "OIDC without claims": _oidc(claims=None),
    "OIDC with no claims": _oidc(claims={}),
    "OIDC with the issuer as the only claim": _oidc(claims={"iss": ["https://issuer.example"]}),
    "OIDC with the audience as a claim": _oidc(claims={"aud": ["x"], "sub": ["a"]}),
    "OIDC claim of one text": _oidc(claims={"sub": "a"}),
    "OIDC claim as a number": _oidc(claims={"sub": [1]}),
    "OIDC claim without values": _oidc(claims={"sub": []}),
    "OIDC claim with an empty value": _oidc(claims={"sub": [""]}),
    "OIDC claim with a pattern": _oidc(claims={"sub": ["repo:shop/*"]}),
    "OIDC claim without a name": _oidc(claims={"": ["a"]}),
    "OIDC claim with a strange name": _oidc(claims={"a b": ["a"]}),
    "OIDC claim with a name too long": _oidc(claims={"a" * 129: ["a"]}),
    "OIDC claim too long": _oidc(claims={"sub": ["a" * 513]}),
    "OIDC claim with too many values": _oidc(claims={"sub": [str(n) for n in range(17)]}),
    "OIDC with too many claims": _oidc(claims={f"c{n}": ["a"] for n in range(17)}),
    "OIDC audience empty": _oidc(audience=""),
    "OIDC audience with a space": _oidc(audience="a b"),
    "account without uid": _proved(serviceAccount={"namespace": "ci", "name": "runner"}),
    "account without namespace": _proved(serviceAccount={"name": "runner", "uid": "0a1b"}),
    "account that climbs out": _proved(serviceAccount=ACCOUNT | {"namespace": "../ci"}),
    "account with an empty uid": _proved(serviceAccount=ACCOUNT | {"uid": ""}),
    "keys without a set": _proved(publicKeys={}),
    "keys, but none": _proved(publicKeys={"jwks": {"keys": []}}),
    "five keys": _proved(publicKeys={"jwks": {"keys": [JWK | {"kid": str(n)} for n in range(5)]}}),
    "two keys of one name": _proved(publicKeys={"jwks": {"keys": [JWK, JWK]}}),
    "key without a name": _key(kid=None),
    "key without an algorithm": _key(alg=None),
    "key for HS256": _key(alg="HS256"),
    "key for none": _key(alg="none"),
    "key of a shared secret": _key(kty="oct"),
    "key for encryption": _key(use="enc"),
    "key on another curve": _key(crv="secp256k1"),
    "key in plain base64": _key(x="ab+/"),
    "certificate of nobody": _proved(certificate={}),
    "certificate known twice": _proved(certificate={"sha256": ["0" * 64], "dnsName": "a.example"}),
    "certificate digest in capitals": _proved(certificate={"sha256": ["A" * 64]}),
    "certificate digest too short": _proved(certificate={"sha256": ["0" * 63]}),
    "certificate digest twice": _proved(certificate={"sha256": ["0" * 64, "0" * 64]}),
    "no certificate digests": _proved(certificate={"sha256": []}),
    "certificate of any name": _proved(certificate={"dnsName": "*.example"}),
    "certificate of a bare name": _proved(certificate={"dnsName": "localhost"}),
    "certificate name in capitals": _proved(certificate={"dnsName": "A.example"}),
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
    "reused too long": _granting(reuse="5m1s"),
    "reuse empty": _granting(reuse=""),
    "reuse a number": _granting(reuse=30),
    "reuse without a unit": _granting(reuse="30"),
    "reuse with a fraction": _granting(reuse="1.5s"),
    "reuse below zero": _granting(reuse="-1s"),
    "reused, and revoked one by one": _granting(reuse="1s", revocation="Token"),
    "Vault TTL too short": _granting(vault={"ttl": "5m"}),
    "Vault TTL too long": _granting(vault={"ttl": "25h"}),
    "renewed too late": _granting(vault={"ttl": "1h", "renewBefore": "59s"}),
    "renewed all the time": _granting(vault={"ttl": "1h", "renewBefore": "1h"}),
}


def largest() -> dict[str, Any]:
    """Return the largest specification that the schema takes."""
    claims = {
        f"{name:a<128}": [f"{value:0>512}" for value in range(16)] for name in map(chr, range(ord("b"), ord("r")))
    }
    proof = {"oidc": {"issuer": f"https://{'i' * 504}", "audience": "a" * 256, "claims": claims}}
    grants = [
        {
            "name": f"{number}{'g' * 62}",
            "serviceAccount": {"name": f"{number}{'x' * 252}"},
            "audiences": [f"{audience}{'a' * 255}" for audience in range(8)],
            "ttl": {"default": "15m", "max": "24h"},
            "reuse": "5m",
            "vault": {"ttl": "12h", "renewBefore": "4h"},
        }
        for number in range(8)
    ]
    return {
        "owner": "o" * 253,
        "rate": {"perMinute": 100_000, "burst": 100_000},
        "notAfter": "2100-01-01T00:00:00Z",
        "authentication": [proof] * 4,
        "grants": grants,
    }

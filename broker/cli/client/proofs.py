"""What proves a client beside a secret, as ``client add`` is told and as a TokenClient carries it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker.cli.errors import usage
from broker.cli.manifests import Manifest


@dataclass(frozen=True, slots=True)
class CallerAccount:
    """A ServiceAccount of the cluster that calls as a client, with a token of its own."""

    namespace: str
    name: str


def oidc(issuer: str | None, claims: Sequence[str], audience: str | None) -> list[Manifest]:
    """Return the proof by an issuer's JWTs; a claim that is named twice may have any of its values.

    Raises CommandError for options that only mean something together.
    """
    if issuer is None:
        if claims or audience:
            raise usage("--oidc-claim and --oidc-audience are about an issuer's JWTs: name it with --oidc-issuer.")
        return []
    if not claims:
        raise usage("--oidc-issuer alone would let in everybody who gets a JWT there: add --oidc-claim NAME=VALUE.")
    proof: Manifest = {"issuer": issuer, "claims": _claims(claims)}
    return [{"oidc": proof | ({"audience": audience} if audience is not None else {})}]


def _claims(texts: Iterable[str]) -> dict[str, list[str]]:
    claims: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise usage(f"--oidc-claim {text!r} is not NAME=VALUE, such as repository_id=123456.")
        values = claims.setdefault(name, [])
        if value not in values:
            values.append(value)
    return claims


def certificates(fingerprints: Iterable[str], dns_name: str | None) -> list[Manifest]:
    """Return the proofs by TLS client certificates; fingerprints may be written as openssl prints them."""
    digests = list(dict.fromkeys(text.replace(":", "").lower() for text in fingerprints))
    proofs: list[Manifest] = [{"certificate": {"sha256": digests}}] if digests else []
    return proofs + ([{"certificate": {"dnsName": dns_name}}] if dns_name is not None else [])


def caller_account(text: str | None) -> CallerAccount | None:
    """Return the account that ``--caller-account NAMESPACE/NAME`` names. Raises CommandError."""
    if text is None:
        return None
    namespace, slash, name = text.partition("/")
    if not slash or not namespace or not name or "/" in name:
        raise usage(f"--caller-account {text!r} is not NAMESPACE/NAME.")
    return CallerAccount(namespace, name)


def account(caller: CallerAccount, uid: str) -> Manifest:
    """Return the proof by a ServiceAccount's token. One that is made again under its name is another account."""
    return {"serviceAccount": {"namespace": caller.namespace, "name": caller.name, "uid": uid}}


def without_secrets(authentication: Iterable[Manifest] | None) -> list[Manifest]:
    """Return the proofs of a TokenClient that are no secret."""
    return [proof for proof in authentication or () if "clientSecret" not in proof]


def digests(authentication: Iterable[Manifest] | None) -> list[str]:
    """Return the digests of a TokenClient's secrets, the older one first."""
    return [digest for proof in authentication or () for digest in proof.get("clientSecret", {}).get("digests", ())]


def described(proof: Mapping[str, Manifest]) -> list[str]:
    """Return the lines that tell people what a proof accepts."""
    ((kind, what),) = proof.items()
    match kind:
        case "oidc":
            wanted = [f"  {name} = {' or '.join(values)}" for name, values in sorted(what["claims"].items())]
            return [f"a JWT of {what['issuer']} for {what.get('audience', 'the broker')}", *wanted]
        case "serviceAccount":
            return [f"a token of the ServiceAccount {what['namespace']}/{what['name']} (uid {what['uid']})"]
        case "publicKeys":
            keys = ", ".join(f"{key['kid']} ({key['alg']})" for key in what["jwks"]["keys"])
            return [f"an assertion signed with the key {keys}"]
        case "certificate" if "dnsName" in what:
            return [f"a certificate for {what['dnsName']}"]
        case "certificate":
            return [f"the certificate with the SHA-256 {' or '.join(what['sha256'])}"]
    return [f"{kind}, which this version of the command line does not know"]

"""What the operator's configuration lets prove a client, whatever TokenClients say. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from broker.model.client import Proofs
from broker.model.proof import OidcRule


@dataclass(frozen=True, slots=True)
class ProofPolicy:
    """The operator's word on proofs.

    ``issuers`` are those whose JWTs count, each with the claims of which a TokenClient must name a value.
    ``audience`` is the broker's URL, for whom JWTs are where the TokenClient does not say. Tokens for
    ``foreign_audiences``, such as the API server's, are everywhere and prove nothing.
    """

    audience: str | None = None
    issuers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    foreign_audiences: frozenset[str] = frozenset()
    certificates: bool = False
    kinds: frozenset[str] | None = None
    """The kinds that the operator lets count in the client's namespace, as TokenClients name them; None: all."""

    def counts(self, kind: str) -> bool:
        """Tell whether a kind of proof may count at all."""
        return self.kinds is None or kind in self.kinds


def oidc_problem(rule: OidcRule, policy: ProofPolicy) -> str | None:
    """Return why a rule can never prove anybody, or None."""
    if rule.issuer not in policy.issuers:
        return f"oidc: {rule.issuer} is not among the issuers that the broker's operator lists."
    missing = policy.issuers[rule.issuer] - rule.claims.keys()
    if missing:
        return f"oidc: the broker's operator wants these claims of {rule.issuer} named: {', '.join(sorted(missing))}."
    audience = rule.audience or policy.audience
    if audience is None:
        return "oidc: name an audience; the broker was not told its own URL (listen.public_url)."
    if audience in policy.foreign_audiences:
        return f"oidc: tokens for {audience} are not made for the broker."
    return None


def proof_problems(proofs: Proofs, policy: ProofPolicy) -> tuple[str, ...]:
    """Return for each proof that can never prove anybody why not."""
    return tuple(_problems(proofs, policy))


def usable(proofs: Proofs, policy: ProofPolicy) -> bool:
    """Tell whether there is a way left to prove the client."""
    ways = {
        "clientSecret": bool(proofs.secret_digests),
        "oidc": any(oidc_problem(rule, policy) is None for rule in proofs.oidc),
        "serviceAccount": policy.audience is not None and bool(proofs.accounts),
        "publicKeys": policy.audience is not None and bool(proofs.keys),
        "certificate": policy.certificates and bool(proofs.certificates),
    }
    return any(there and policy.counts(kind) for kind, there in ways.items())


def _problems(proofs: Proofs, policy: ProofPolicy) -> Iterator[str]:
    for kind, there in _there(proofs).items():
        if there and not policy.counts(kind):
            yield f"{kind}: the broker's operator does not let this kind of proof count in this namespace."
    for rule in proofs.oidc:
        problem = oidc_problem(rule, policy)
        if problem is not None:
            yield problem
    if policy.audience is None and proofs.accounts:
        yield "serviceAccount: the broker was not told its own URL (listen.public_url), which tokens have to be for."
    if policy.audience is None and proofs.keys:
        yield "publicKeys: the broker was not told its own URL (listen.public_url), which assertions have to be for."
    if not policy.certificates and proofs.certificates:
        yield "certificate: the broker takes no client certificates (listen.tls.client_ca_file)."


def _there(proofs: Proofs) -> dict[str, bool]:
    return {
        "clientSecret": bool(proofs.secret_digests),
        "oidc": bool(proofs.oidc),
        "serviceAccount": bool(proofs.accounts),
        "publicKeys": bool(proofs.keys),
        "certificate": bool(proofs.certificates),
    }

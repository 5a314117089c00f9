"""Joins the checks of proofs: which issuers' JWTs, whose accounts, and for whom all of them must be."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from broker.config import Config, ConfigError, IssuerConfig, TlsFiles
from broker.identity import secret
from broker.identity.assertion import Assertions
from broker.identity.bearer import Bearers
from broker.identity.fetch import FileKeys, Web, WebKeys
from broker.identity.key_set import KeySet, KeySetMetrics, KeySource
from broker.identity.oidc import OidcIssuer
from broker.identity.service_account import ClusterTokens
from broker.model.proof_policy import ProofPolicy
from broker.ports import Clock, ProofReviewer
from broker.services.authenticate import Checks


@dataclass(frozen=True, slots=True)
class ClusterNames:
    """How the cluster calls itself in its tokens: as their issuer, and as the audience of its API server."""

    issuer: str
    audience: str


@asynccontextmanager
async def proof_checks(
    config: Config,
    cluster_keys: KeySource,
    reviewer: ProofReviewer,
    cluster: ClusterNames,
    *,
    clock: Clock,
    metrics: KeySetMetrics,
) -> AsyncIterator[Checks]:
    """Make the checks, and end what they have under way on leaving.

    Without a public URL there is nothing that ServiceAccounts' tokens and assertions could be for, so none count.
    Raises ConfigError where the cluster itself is listed as an OIDC issuer.
    """
    own_issuer = cluster.issuer
    if own_issuer in {issuer.issuer for issuer in config.oidc.issuers}:
        raise ConfigError(
            f"oidc.issuers: {own_issuer} is this cluster: its accounts are proved by serviceAccount, which notices "
            "that one was deleted"
        )
    async with AsyncExitStack() as stack:
        web = await stack.enter_async_context(Web())
        issuers = []
        for issuer in config.oidc.issuers:
            keys = KeySet(issuer.issuer, _source(web, issuer), clock, metrics)
            stack.push_async_callback(keys.close)
            issuers.append(_issuer(issuer, keys))
        accounts = assertions = None
        public_url = config.listen.public_url
        if public_url is not None:
            keys = KeySet(own_issuer, cluster_keys, clock, metrics)
            stack.push_async_callback(keys.close)
            accounts = ClusterTokens(own_issuer, public_url, keys, reviewer, clock)
            assertions = Assertions((public_url, f"{public_url}/oauth2/token"), clock)
        yield Checks(secret, Bearers(issuers, accounts, clock), assertions, proof_policy(config, cluster.audience))


def proof_policy(config: Config, api_audience: str) -> ProofPolicy:
    """Return the operator's word on proofs. Tokens for the API server are everywhere, so they prove nothing."""
    tls = config.listen.tls
    return ProofPolicy(
        audience=config.listen.public_url,
        issuers={issuer.issuer: issuer.mandatory_claims for issuer in config.oidc.issuers},
        foreign_audiences=frozenset({api_audience}),
        certificates=isinstance(tls, TlsFiles) and tls.client_ca_file is not None,
    )


def _source(web: Web, issuer: IssuerConfig) -> WebKeys | FileKeys:
    if issuer.jwks_file is not None:
        return FileKeys(issuer.jwks_file)
    return WebKeys(web, issuer.issuer, issuer.jwks_uri, issuer.ca_file)


def _issuer(issuer: IssuerConfig, keys: KeySet) -> OidcIssuer:
    return OidcIssuer(
        issuer=issuer.issuer,
        keys=keys,
        algorithms=frozenset(issuer.algorithms),
        max_age_seconds=issuer.max_age_seconds,
        claims=issuer.claims,
    )

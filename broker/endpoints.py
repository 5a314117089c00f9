"""Joins the endpoints of the API listener to the services that they call."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from broker.config import Config
from broker.http.api import Contract, Endpoints, api_router
from broker.http.callers import Callers
from broker.http.formats import Formats
from broker.http.grants import GrantsEndpoint
from broker.http.introspect import IntrospectEndpoint
from broker.http.metadata import MetadataEndpoint
from broker.http.oauth import OauthEndpoint
from broker.http.revoke import RevokeEndpoint
from broker.http.router import Router
from broker.http.tokens import TokensEndpoint
from broker.identity.jose import ALL_ALGORITHMS
from broker.metrics.counted import Metrics
from broker.model.cluster import ClusterInfo
from broker.model.decision import Rules
from broker.ports import Clock
from broker.services.authenticate import Authenticator
from broker.services.deliver import Deliverer
from broker.services.explain import Explainer
from broker.services.introspect import Introspector
from broker.services.issue import Issuer
from broker.services.revoke import Revoker


@dataclass(frozen=True, slots=True)
class Services:
    """What the endpoints call."""

    authenticator: Authenticator
    issuer: Issuer
    deliverer: Deliverer
    explainer: Explainer
    introspector: Introspector
    revoker: Revoker


def api(
    config: Config,
    services: Services,
    *,
    rules: Rules,
    clock: Clock,
    metrics: Metrics,
    new_request_id: Callable[[], str],
) -> Router:
    """Return what answers on the API listener."""
    listen = config.listen
    callers = Callers(services.authenticator, listen.trusted_proxies, listen.body_timeout_seconds)
    tokens = TokensEndpoint(
        callers=callers,
        issuer=services.issuer,
        deliverer=services.deliverer,
        explainer=services.explainer,
        formats=Formats(cluster_info(config), listen.public_url),
        metrics=metrics,
        new_request_id=new_request_id,
    )
    oauth = OauthEndpoint(
        callers=callers, issuer=services.issuer, clock=clock, metrics=metrics, new_request_id=new_request_id
    )
    endpoints = Endpoints(
        tokens=tokens,
        grants=GrantsEndpoint(callers, rules, clock, new_request_id),
        oauth=oauth,
        introspect=IntrospectEndpoint(callers, services.introspector, new_request_id),
        revoke=RevokeEndpoint(callers, services.revoker, new_request_id),
        metadata=MetadataEndpoint(listen.public_url, ALL_ALGORITHMS) if listen.public_url else None,
        contract=Contract(_contract()),
    )
    return api_router(endpoints, new_request_id=new_request_id, metrics=metrics)


def new_request_id() -> str:
    """Return the id under which one request is found in the answer, the log and the audit record."""
    return os.urandom(8).hex()


def cluster_info(config: Config) -> ClusterInfo:
    """Return what clients are told about the cluster."""
    cluster = config.cluster
    return ClusterInfo(cluster.name, cluster.server, cluster.ca_file.read_text(encoding="ascii"))


def _contract() -> str:
    packaged = resources.files("broker") / "openapi.yaml"
    checkout = Path(__file__).parent.parent / "openapi.yaml"
    return packaged.read_text(encoding="utf-8") if packaged.is_file() else checkout.read_text(encoding="utf-8")

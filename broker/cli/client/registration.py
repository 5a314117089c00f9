"""What ``client add`` and ``client render`` are told about a client, and the client that it makes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from broker.cli import options as opt
from broker.cli.check.checks import check
from broker.cli.client import proofs
from broker.cli.client.handover import Handover, new_secret
from broker.cli.client.rule_texts import parse_cluster_wide_rule, parse_rule
from broker.cli.cluster import Cluster
from broker.cli.errors import CommandError, usage
from broker.cli.finding import named
from broker.cli.manifests import Account, BrokerAccount, Manifest, NewClient, NewGrant, Rights, Vault
from broker.cli.option_sets import taking
from broker.cli.resources import Kind
from broker.model.client import ClientId, Expect, Revocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The options of a registration; each field is one, with its default."""

    service_account: opt.ServiceAccount
    namespace: opt.Namespace = None
    create: opt.Create = False
    cluster_role: opt.ClusterRoles = None
    rule: opt.RuleTexts = None
    cluster_wide_role: opt.WideRoles = None
    cluster_wide_rule: opt.WideRules = None
    allow_strong: opt.AllowStrong = False
    expect_allow: opt.ExpectAllow = None
    expect_deny: opt.ExpectDeny = None
    ttl: opt.Ttl = "15m"
    max_ttl: opt.MaxTtl = "1h"
    audience: opt.Audiences = None
    revocation: opt.RevocationUnit = Revocation.GRANT
    reuse: opt.Reuse = "0s"
    rate: opt.Rate = None
    burst: opt.Burst = None
    vault: opt.KeepInVault = False
    vault_ttl: opt.VaultTtl = None
    renew_before: opt.RenewBefore = None
    grant: opt.GrantName = "default"
    oidc_issuer: opt.OidcIssuer = None
    oidc_claim: opt.OidcClaims = None
    oidc_audience: opt.OidcAudience = None
    caller_account: opt.Caller = None
    public_key: opt.PublicKey = None
    certificate_sha256: opt.CertificateSha256 = None
    certificate_dns: opt.CertificateDns = None
    owner: opt.Owner = ""
    broker: opt.Broker = "tokenbroker/tokenbroker"
    no_secret: opt.NoSecret = False
    secret_file: opt.SecretFile = None
    kubeconfig: opt.Kubeconfig = ""
    context: opt.Context = None


takes_told = taking("told", Told)
"""Gives a command the options of a registration, which it takes as the one value ``told``."""


def new_client(name: str, told: Told) -> NewClient:
    """Return the client, yet without its secret, a namespace that was left to the kubeconfig, and its caller.

    Raises CommandError for what cannot be meant.
    """
    namespace, alone = named(name, told.namespace)
    vault = _vault(wanted=told.vault, ttl=told.vault_ttl, renew_before=told.renew_before)
    expect = Expect(tuple(told.expect_allow or ()), tuple(told.expect_deny or ()))
    audiences = tuple(told.audience or ())
    return NewClient(
        id=ClientId(namespace or "", alone),
        owner=told.owner,
        account=Account(told.service_account, told.create),
        rights=_rights(told),
        grant=NewGrant(told.grant, told.ttl, told.max_ttl, audiences, vault, told.revocation, expect, told.reuse),
        rate=_rate(told.rate, told.burst),
        broker=BrokerAccount.parse(told.broker),
        digest="",
        proofs=(
            *proofs.oidc(told.oidc_issuer, told.oidc_claim or (), told.oidc_audience),
            *_public_keys(told.public_key),
            *proofs.certificates(told.certificate_sha256 or (), told.certificate_dns),
        ),
    )


def _rate(per_minute: int | None, burst: int | None) -> dict[str, int]:
    if burst is not None and per_minute is None:
        raise usage("--burst is a part of a rate: say --rate, too")
    told = {"perMinute": per_minute, "burst": burst}
    return {name: number for name, number in told.items() if number is not None}


def completed(new: NewClient, namespace: str, handover: Handover | None) -> NewClient:
    """Return the client with its namespace and secret. Raises CommandError for one that cannot be meant."""
    whole = replace(new, id=ClientId(namespace, new.id.name), digest=handover.digest if handover else "")
    check(whole)
    return whole


async def with_caller(new: NewClient, caller: proofs.CallerAccount | None, cluster: Cluster) -> NewClient:
    """Return the client, proved by an account of the cluster too, which is known by its uid. Raises CommandError."""
    if caller is None:
        return new
    found = await cluster.get(Kind.SERVICE_ACCOUNT, caller.namespace, caller.name)
    if found is None:
        raise CommandError(f"there is no service account {caller.name!r} in namespace {caller.namespace} to call from.")
    return replace(new, proofs=(*new.proofs, proofs.account(caller, str(found["metadata"]["uid"]))))


def secret(told: Told, *, otherwise_proved: bool) -> AbstractContextManager[Handover | None]:
    """Return what makes the secret, or None for a client that needs none: with another proof it is made on request."""
    if told.no_secret and told.secret_file:
        raise usage("--no-secret and --secret-file contradict each other.")
    if told.no_secret or (otherwise_proved and not told.secret_file):
        return nullcontext()
    return new_secret(told.secret_file)


def _public_keys(file: Path | None) -> list[Manifest]:
    if file is None:
        return []
    from broker.cli.client.public_keys import read_public_keys  # noqa: PLC0415 - cryptography takes its time to load

    return [read_public_keys(file)]


def _rights(told: Told) -> Rights:
    return Rights(
        tuple(dict.fromkeys(told.cluster_role or ())),
        tuple(rule for text in told.rule or () for rule in parse_rule(text)),
        tuple(dict.fromkeys(told.cluster_wide_role or ())),
        tuple(rule for text in told.cluster_wide_rule or () for rule in parse_cluster_wide_rule(text)),
    )


def _vault(*, wanted: bool, ttl: str | None, renew_before: str | None) -> Vault | None:
    if not wanted and (ttl or renew_before):
        raise usage("--vault-ttl and --renew-before are for a token in Vault: add --vault.")
    return Vault(ttl or "12h", renew_before or "") if wanted else None

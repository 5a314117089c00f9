"""``tokenbroker client add``."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import typer

from broker.cli import options as opt
from broker.cli import proofs
from broker.cli.checks import check
from broker.cli.cluster import Access, Cluster, connect
from broker.cli.creating import Outcome, create_client
from broker.cli.errors import CommandError, errors_shown, usage
from broker.cli.handover import Handover, new_secret
from broker.cli.manifests import Account, BrokerAccount, Manifest, NewClient, NewGrant, Rights, Vault, manifests
from broker.cli.output import Output, show, to_yaml
from broker.cli.resources import Kind
from broker.cli.rules import parse_rule
from broker.cli.run import run
from broker.model.client import ClientId


def add(
    name: opt.Name,
    *,
    service_account: opt.ServiceAccount,
    namespace: opt.Namespace = None,
    create: opt.Create = False,
    cluster_role: opt.ClusterRoles = None,
    rule: opt.RuleTexts = None,
    ttl: opt.Ttl = "15m",
    max_ttl: opt.MaxTtl = "1h",
    audience: opt.Audiences = None,
    vault: opt.KeepInVault = False,
    vault_ttl: opt.VaultTtl = None,
    renew_before: opt.RenewBefore = None,
    grant: opt.GrantName = "default",
    oidc_issuer: opt.OidcIssuer = None,
    oidc_claim: opt.OidcClaims = None,
    oidc_audience: opt.OidcAudience = None,
    caller_account: opt.Caller = None,
    public_key: opt.PublicKey = None,
    certificate_sha256: opt.CertificateSha256 = None,
    certificate_dns: opt.CertificateDns = None,
    owner: opt.Owner = "",
    broker: opt.Broker = "tokenbroker/tokenbroker",
    no_secret: opt.NoSecret = False,
    secret_file: opt.SecretFile = None,
    output: opt.AddOutput = Output.TEXT,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """Register a client: its account's rights, the broker's right to mint for it, and the TokenClient.

    All is made with your own rights, or nothing is. Objects that this command did not make are never touched.
    """
    with errors_shown():
        new = NewClient(
            id=ClientId(namespace or "", name),
            owner=owner,
            account=Account(service_account, create),
            rights=_rights(cluster_role or [], rule or []),
            grant=NewGrant(grant, ttl, max_ttl, tuple(audience or ()), _vault(vault, vault_ttl, renew_before)),
            broker=BrokerAccount(*broker.partition("/")[::2]),
            digest="",
            proofs=(
                *proofs.oidc(oidc_issuer, oidc_claim or (), oidc_audience),
                *_public_keys(public_key),
                *proofs.certificates(certificate_sha256 or (), certificate_dns),
            ),
        )
        caller = proofs.caller_account(caller_account)
        secret = _secret(no_secret, secret_file, output, otherwise_proved=bool(new.proofs or caller))
    run(_add(Access(kubeconfig, context), new, caller, secret, output))


async def _add(
    access: Access,
    new: NewClient,
    caller: proofs.CallerAccount | None,
    secret: AbstractContextManager[Handover | None],
    output: Output,
) -> None:
    with secret as handover:
        if new.id.namespace and caller is None:
            new = _completed(new, new.id.namespace, handover)
            if output is Output.YAML:
                return _print(new, handover)  # nothing of this needs a cluster
        async with connect(access) as cluster:
            if caller is not None:
                new = replace(new, proofs=(*new.proofs, proofs.account(caller, await _uid(cluster, caller))))
            new = _completed(new, new.id.namespace or cluster.namespace, handover)
            if output is Output.YAML:
                return _print(new, handover)
            return _report(new.id, await create_client(cluster, new), handover, output)


async def _uid(cluster: Cluster, caller: proofs.CallerAccount) -> str:
    found = await cluster.get(Kind.SERVICE_ACCOUNT, caller.namespace, caller.name)
    if found is None:
        raise CommandError(f"there is no service account {caller.name!r} in namespace {caller.namespace} to call from.")
    return str(found["metadata"]["uid"])


def _public_keys(file: Path | None) -> list[Manifest]:
    if file is None:
        return []
    from broker.cli.public_keys import read_public_keys  # noqa: PLC0415 - cryptography takes its time to load

    return [read_public_keys(file)]


def _completed(new: NewClient, namespace: str, handover: Handover | None) -> NewClient:
    whole = replace(new, id=ClientId(namespace, new.id.name), digest=handover.digest if handover else "")
    check(whole)
    return whole


def _print(new: NewClient, handover: Handover | None) -> None:
    typer.echo(to_yaml(manifests(new)), nl=False)
    if handover:
        handover.show()


def _report(client: ClientId, outcomes: list[Outcome], handover: Handover | None, output: Output) -> None:
    registered = outcomes[-1].created
    if handover and not registered:
        handover.discard()
    if output is Output.JSON:
        document = {
            "client": str(client),
            "created": registered,
            "objects": [_object(made) for made in outcomes],
        }
        return show(document | (handover.document() if handover and registered else {}), output)
    for made in outcomes:
        state = "created" if made.created else "unchanged"
        typer.echo(
            f"{state}: {made.manifest['kind']} {client.namespace}/{made.manifest['metadata']['name']}",
            err=True,
        )
    if handover and registered:
        return handover.show()
    if handover:
        typer.echo(
            "the client was there already and keeps its secret; `client rotate-secret` makes a new one",
            err=True,
        )
    return None


def _object(made: Outcome) -> dict[str, str | bool]:
    return {"kind": made.manifest["kind"], "name": made.manifest["metadata"]["name"], "created": made.created}


def _rights(cluster_roles: list[str], rules: list[str]) -> Rights:
    return Rights(tuple(dict.fromkeys(cluster_roles)), tuple(rule for text in rules for rule in parse_rule(text)))


def _vault(wanted: bool, ttl: str | None, renew_before: str | None) -> Vault | None:
    if not wanted and (ttl or renew_before):
        raise usage("--vault-ttl and --renew-before are for a token in Vault: add --vault.")
    return Vault(ttl or "12h", renew_before or "") if wanted else None


def _secret(
    no_secret: bool, file: Path | None, output: Output, *, otherwise_proved: bool
) -> AbstractContextManager[Handover | None]:
    """Return what makes the secret, or None for a client that needs none: with another proof it is made on request."""
    if no_secret and file:
        raise usage("--no-secret and --secret-file contradict each other.")
    if no_secret or (otherwise_proved and not file):
        return nullcontext()
    if output is Output.YAML and not file:
        raise usage("what goes to git carries only the secret's digest: name a --secret-file, or say --no-secret.")
    return new_secret(file)

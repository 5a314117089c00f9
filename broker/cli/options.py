"""The options of all commands, each described once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.output import Output
from broker.model.client import Revocation


class AddFormat(StrEnum):
    """What ``client add -o`` takes."""

    TEXT = "text"
    JSON = "json"


Client = Annotated[str, typer.Argument(metavar="[NAMESPACE/]NAME", help="The client.")]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        help="The namespace; that of the kubeconfig's context where left out.",
    ),
]
Kubeconfig = Annotated[
    str,
    typer.Option(
        envvar="KUBECONFIG",
        metavar="FILE",
        help="The kubeconfig; ~/.kube/config where left out.",
        show_default=False,
    ),
]
Context = Annotated[
    str | None, typer.Option(metavar="NAME", help="The kubeconfig's context; its current one where left out.")
]
OutputFormat = Annotated[Output, typer.Option("--output", "-o", help="For people (text) or for programs.")]

ServiceAccount = Annotated[str, typer.Option(metavar="NAME", help="The account that the client gets tokens of.")]
Create = Annotated[bool, typer.Option("--create", help="Make the account; it must not exist yet.")]
ClusterRoles = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Let the account do what this ClusterRole says, in the namespace. Repeatable."),
]
RuleTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        metavar="'VERBS RESOURCES'",
        help="Let the account do this in the namespace, as in 'get,list pods,deployments.apps'. Repeatable.",
    ),
]
WideRoles = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster-wide-role",
        metavar="NAME",
        help="Let the account do what this ClusterRole says, in the whole cluster. Repeatable.",
    ),
]
WideRules = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster-wide-rule",
        metavar="'VERBS RESOURCES'",
        help="Let the account do this in the whole cluster, as in 'get nodes,/metrics'. Repeatable.",
    ),
]
AllowStrong = Annotated[
    bool,
    typer.Option("--allow-strong", help="Take an account that could outlive the revocation of its tokens."),
]
ExpectAllow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ACTION", help="What the account must be able to do, as `kubectl auth can-i` takes it. Repeatable."
    ),
]
ExpectDeny = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ACTION", help="What it must not be able to do: the broker issues nothing if it can. Repeatable."
    ),
]
RevocationUnit = Annotated[
    Revocation, typer.Option("--revocation", help="What ends with one revocation: the grant's tokens, one, or none.")
]
Reuse = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        help="How long the same token is handed out again, for many instances that start at once; 5m at most.",
    ),
]
Rate = Annotated[
    int | None,
    typer.Option(metavar="TOKENS", help="How many tokens a minute the client may be handed out, by each replica."),
]
Burst = Annotated[
    int | None,
    typer.Option(metavar="TOKENS", help="How many of them at once; as many as in a minute where left out."),
]
OptIn = Annotated[
    bool, typer.Option("--opt-in", help="Label the namespace as one where the broker may mint, if it is not yet.")
]
Ttl = Annotated[
    str,
    typer.Option(metavar="DURATION", help="How long tokens live where a caller does not say; 10m at least."),
]
MaxTtl = Annotated[str, typer.Option(metavar="DURATION", help="How long tokens may live; 24h at most.")]
Audiences = Annotated[
    list[str] | None,
    typer.Option(metavar="AUDIENCE", help="What tokens may be for; the API server's own where left out. Repeatable."),
]
KeepInVault = Annotated[bool, typer.Option("--vault", help="Keep a current token in Vault.")]
VaultTtl = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="How long the token in Vault lives (with --vault).  [default: 12h]"),
]
RenewBefore = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="How long before its end it is replaced; a third of its life where left out (with --vault).",
    ),
]
GrantName = Annotated[str, typer.Option("--grant", metavar="NAME", help="What the grant is called.")]
Owner = Annotated[str, typer.Option(metavar="TEXT", help="Whom to ask about this client; shown, never interpreted.")]
Broker = Annotated[
    str, typer.Option(metavar="NAMESPACE/ACCOUNT", help="The service account under which the broker runs.")
]
OidcIssuer = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The client is proved by JWTs of this issuer, which the broker has to know."),
]
OidcClaims = Annotated[
    list[str] | None,
    typer.Option(
        "--oidc-claim",
        metavar="NAME=VALUE",
        help="What its JWTs must say; all of them, and for a name that is there twice, any of its values. Repeatable.",
    ),
]
OidcAudience = Annotated[
    str | None, typer.Option(metavar="AUDIENCE", help="Whom its JWTs must be for; the broker's URL where left out.")
]
Caller = Annotated[
    str | None,
    typer.Option(
        "--caller-account",
        metavar="NAMESPACE/NAME",
        help="The client is proved by tokens of this ServiceAccount of the cluster, made for the broker's URL.",
    ),
]
PublicKey = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The client is proved by what it signs: a JWK, a JWK set, or PEM; public only."),
]
CertificateSha256 = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FINGERPRINT", help="The client is proved by the TLS certificate with this fingerprint. Repeatable."
    ),
]
CertificateDns = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The client is proved by a TLS certificate for this DNS name."),
]
NoSecret = Annotated[
    bool, typer.Option("--no-secret", help="Make no secret: without another proof, only Vault serves this client.")
]
SecretFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the secret to this new file (mode 0600) and do not show it."),
]
AddOutput = Annotated[
    AddFormat, typer.Option("--output", "-o", help="What was made, for people (text) or for programs.")
]

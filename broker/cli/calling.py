"""The options by which a command finds the broker and proves who calls it, described once."""

import os
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.credentials import Given
from broker.model.sensitive import Sensitive

Url = Annotated[str | None, typer.Option(envvar="TOKENBROKER_URL", help="The broker.")]
Caller = Annotated[
    str | None,
    typer.Option("--client", envvar="TOKENBROKER_CLIENT", metavar="NAMESPACE/NAME", help="Who you are."),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        envvar="TOKENBROKER_SECRET_FILE",
        help="The file with the client's secret; TOKENBROKER_SECRET may hold the secret itself instead.",
    ),
]
JwtFile = Annotated[
    Path | None,
    typer.Option(
        envvar="TOKENBROKER_JWT_FILE",
        help="Instead: the file with a JWT of the client's issuer, or with a ServiceAccount's token.",
    ),
]
CredentialsFile = Annotated[
    Path | None,
    typer.Option(help="A JSON or YAML file with url, client, secret_file, jwt_file or secret, and ca_file."),
]
CaFile = Annotated[Path | None, typer.Option(help="Trust the broker's certificate by this CA only.")]


def given(
    url: str | None, client: str | None, secret_file: Path | None, jwt_file: Path | None, ca_file: Path | None
) -> Given:
    """Return what the options say, and the environment's secret."""
    secret = os.environ.get("TOKENBROKER_SECRET")
    return Given(url, client, secret_file, Sensitive(secret) if secret else None, jwt_file, ca_file)

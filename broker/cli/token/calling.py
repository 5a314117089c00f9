"""The options by which a command finds the broker and proves who calls it, described once."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.option_sets import taking
from broker.cli.token.credentials import Credentials, Given, find
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """The options; each field is one."""

    url: Url = None
    client: Caller = None
    secret_file: SecretFile = None
    jwt_file: JwtFile = None
    credentials: CredentialsFile = None
    ca_file: CaFile = None

    def found(self) -> Credentials:
        """Return the credentials to use, read anew each time. Raises CommandError."""
        secret = os.environ.get("TOKENBROKER_SECRET")
        given = Given(
            self.url, self.client, self.secret_file, Sensitive(secret) if secret else None, self.jwt_file, self.ca_file
        )
        return find(given, self.credentials)


takes_who = taking("who", Who)
"""Gives a command these options, which it takes as the one value ``who``."""

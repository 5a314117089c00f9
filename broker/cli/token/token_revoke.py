"""``tokenbroker token revoke``: end a token before its time."""

from typing import Annotated

import typer

from broker.cli.errors import usage
from broker.cli.run import run
from broker.cli.token.calling import Who, takes_who
from broker.cli.token.token_file import read_token
from broker.model.anchor import TOKEN_ID
from broker.model.sensitive import Sensitive


@takes_who
def revoke(
    token_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The token's id, as the broker's answer has it.")
    ] = None,
    *,
    token_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Instead: the file with the token itself; - is stdin.")
    ] = None,
    who: Who,
) -> None:
    """End a token of a grant with revocation Token; the API server refuses it within about 15 s."""
    from broker.cli.token.broker_api import revoke_id, revoke_token  # noqa: PLC0415 - aiohttp takes long to load

    async def work() -> None:
        _one_of(token_id, token_file)
        proof = who.found()
        if token_file is not None:
            await revoke_token(proof, _read(token_file))
        else:
            await revoke_id(proof, token_id or "")
        typer.echo("revoked, if there was such a token of this client", err=True)

    run(work())


def _one_of(token_id: str | None, token_file: str | None) -> None:
    if token_id is not None and token_id.startswith("eyJ"):
        raise usage("give the token on stdin (--token-file -) or in a file: process lists show arguments.")
    if (token_id is None) == (token_file is None):
        raise usage("which token? Give its id, or --token-file with the token itself, and not both.")
    if token_id is not None and not TOKEN_ID.fullmatch(token_id):
        raise usage(
            "that is not the id of a token with an end of its own, 24 hexadecimal digits: "
            "tokens of grants without revocation: Token share theirs."
        )


def _read(file: str) -> Sensitive:
    token = read_token(file)
    if not token.reveal():
        raise usage(f"{file} holds no token.")
    return token

"""``tokenbroker token get``: a token from a broker, printed, or kept fresh in a file."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from broker.cli.errors import usage
from broker.cli.run import run
from broker.cli.token.calling import Who, takes_who
from broker.cli.token.keep import Fetched, keep
from broker.cli.token.token_file import replaced
from broker.model.cluster import ClusterInfo
from broker.model.kubeconfig import kubeconfig
from broker.model.sensitive import Sensitive


class TokenOutput(StrEnum):
    """What ``token get -o`` takes."""

    TOKEN = "token"  # noqa: S105 - a format, not a secret
    JSON = "json"
    KUBECONFIG = "kubeconfig"


@takes_who
def get(
    *,
    who: Who,
    grant: Annotated[str | None, typer.Option(help="Which grant; may be left out where there is one.")] = None,
    ttl: Annotated[str | None, typer.Option(help="How long it shall live, such as 30m.")] = None,
    audience: Annotated[str | None, typer.Option(help="Whom it is for.")] = None,
    output: Annotated[
        TokenOutput, typer.Option("--output", "-o", help="The token alone, all, or a kubeconfig with it.")
    ] = TokenOutput.TOKEN,
    output_file: Annotated[
        Path | None, typer.Option(help="Write it to this file, readable by its owner only, instead of printing it.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and replace the file before the token ends.")] = False,
    command: Annotated[
        str | None, typer.Option("--exec", metavar="COMMAND", help="Run this each time that the file was replaced.")
    ] = None,
) -> None:
    """Get a token from a broker, and print it or keep it in a file."""
    from broker.cli.token.broker_api import Ask, get_token  # noqa: PLC0415 - aiohttp takes a quarter of a second to load

    async def ask() -> dict[str, Any]:
        # Everything is read anew each time, so that a secret can be replaced while this goes on.
        return await get_token(who.found(), Ask(grant, ttl, audience))

    async def fetch() -> Fetched:
        answer = await ask()
        return Fetched(_rendered(answer, output), int(answer["ttl"]["grantedSeconds"]))

    async def work() -> None:
        if watch and output_file is not None:
            return await keep(fetch, output_file, command)
        if watch or command is not None:
            raise usage("--watch keeps a file fresh: name it with --output-file; --exec comes with --watch.")
        content = _rendered(await ask(), output)
        if output_file is not None:
            return replaced(output_file, content)
        return typer.echo(content.reveal(), nl=False)

    run(work())


def _rendered(answer: dict[str, Any], output: TokenOutput) -> Sensitive:
    match output:
        case TokenOutput.TOKEN:
            text = f"{answer['token']}\n"
        case TokenOutput.JSON:
            text = orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode() + "\n"
        case TokenOutput.KUBECONFIG:
            text = _kubeconfig(answer)
    return Sensitive(text)


def _kubeconfig(answer: dict[str, Any]) -> str:
    cluster = answer["cluster"]
    namespace, account = str(answer["subject"]).split(":")[2:]
    info = ClusterInfo(cluster["name"], cluster["server"], cluster["ca"])
    return kubeconfig(info, namespace, account, Sensitive(answer["token"]))

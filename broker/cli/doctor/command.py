"""``tokenbroker doctor``."""

import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from broker.cli import options as opt
from broker.cli import release
from broker.cli.cluster import Access, connect
from broker.cli.doctor.actions import WrittenWish, parse_wish
from broker.cli.doctor.consult import Doctor
from broker.cli.doctor.findings import Finding, State, document, lines, worst
from broker.cli.doctor.installation import Installation
from broker.cli.doctor.meanings import codes
from broker.cli.doctor.requests import Request, find
from broker.cli.doctor.rights import understood
from broker.cli.doctor.vault_facts import Vault
from broker.cli.doctor.web import trust
from broker.cli.errors import ExitCode, errors_shown, usage
from broker.cli.manifests import BrokerAccount
from broker.cli.output import Output, printable, show
from broker.cli.run import run
from broker.cli.token.token_file import read_token
from broker.model.client import ClientId
from broker.model.sensitive import Sensitive


class DoctorOutput(StrEnum):
    """What ``doctor -o`` takes."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about. Without a token, client or request it is the installation, ``url`` being the broker's."""

    token: Sensitive | None
    client: ClientId | None
    grant: str
    request_id: str
    log: Sequence[str] | None
    can: WrittenWish | None
    install: bool
    url: str
    tls: ssl.SSLContext


def doctor(
    *,
    token_file: Annotated[str, typer.Option(metavar="FILE", help="Why is this token refused? - is stdin.")] = "",
    client: Annotated[str, typer.Option(metavar="NAMESPACE/NAME", help="Why does this client get no tokens?")] = "",
    grant: Annotated[str, typer.Option(metavar="NAME", help="Only this grant of the client.")] = "",
    can: Annotated[
        str, typer.Option(metavar="'VERB RESOURCE'", help="May the account do this? As kubectl auth can-i takes it.")
    ] = "",
    request_id: Annotated[str, typer.Option(metavar="ID", help="What became of this request?")] = "",
    audit_log: Annotated[
        str, typer.Option(metavar="FILE", help="The broker's audit log or log, in which it stands; - is stdin.")
    ] = "",
    install: Annotated[
        bool, typer.Option("--install", help="Is the broker set up right? Also without options.")
    ] = False,
    url: Annotated[str, typer.Option(metavar="URL", help="Where the broker is reached (with --install).")] = "",
    ca_file: Annotated[str, typer.Option(metavar="FILE", help="Trust the broker's certificate by this CA.")] = "",
    broker: opt.Broker = "tokenbroker/tokenbroker",
    output: Annotated[DoctorOutput, typer.Option("--output", "-o", help="For people or for programs.")] = (
        DoctorOutput.TEXT
    ),
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """Say why a token is refused, why a client gets none, what became of a request, or whether all is set up right."""
    with errors_shown():
        question = Question(
            token=read_token(token_file) if token_file else None,
            client=_client(client),
            grant=grant,
            request_id=request_id,
            log=_lines(audit_log),
            can=parse_wish(can) if can else None,
            install=install,
            url=url,
            tls=trust(ca_file),
        )
        _check_together(question, audit_log)
        account = BrokerAccount.parse(broker)
    run(_answer(Access(kubeconfig, context), account, question, output))


def _client(text: str) -> ClientId | None:
    found = ClientId.parse(text)
    if text and found is None:
        raise usage(f"--client {text!r} is not NAMESPACE/NAME.")
    return found


def _check_together(question: Question, audit_log: str) -> None:
    asked = question.token is not None or question.request_id
    if bool(question.request_id) > bool(audit_log) or bool(audit_log) > bool(asked):
        raise usage("--audit-log is where a --request-id stands, or what is known of a --token-file: name both.")
    if question.can and not asked and question.client is None:
        raise usage("--can is about an account: name a token, a client or a request.")


def _lines(log: str) -> list[str] | None:
    """Return the lines of the broker's log; None where none is named."""
    if not log:
        return None
    try:
        if log == "-":
            return sys.stdin.readlines()
        return Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise usage(f"--audit-log {log} cannot be read: {error.strerror}.") from None


async def _answer(access: Access, broker: BrokerAccount, question: Question, output: DoctorOutput) -> None:
    async with connect(access) as cluster:
        can = await understood(cluster, question.can) if question.can else None
        vault, now = Vault.of_environment(), datetime.now(UTC)
        asked = Doctor(cluster, broker, codes(release.text(release.ERRORS)), can, vault, now)
        findings = [finding async for finding in _findings(asked, question)]
        if question.install or not findings:
            whole = Installation(cluster, broker, vault, question.url, question.tls, now)
            findings += [finding async for finding in whole.findings()]
    if output is DoctorOutput.JSON:
        show(document(findings), Output.JSON)
    else:
        typer.echo("\n".join(printable(line) for line in lines(findings)))
    if worst(findings) is State.PROBLEM:
        raise typer.Exit(ExitCode.REFUSED)


async def _findings(asked: Doctor, question: Question) -> AsyncIterator[Finding]:
    if question.token is not None:
        async for finding in asked.token(question.token, question.log):
            yield finding
    if question.request_id:
        request = Request(question.request_id, find(question.log or (), "request_id", question.request_id))
        async for finding in asked.request(request):
            yield finding
    if question.client is not None:
        async for finding in asked.client(question.client, question.grant):
            yield finding

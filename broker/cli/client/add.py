"""``tokenbroker client add``."""

import typer

from broker.cli import options as opt
from broker.cli.client.creating import Outcome, create_client
from broker.cli.client.handover import Handover
from broker.cli.client.judging import check_denied, check_words, judge, read_roles, refuse_strong, say
from broker.cli.client.opting_in import opt_namespace_in
from broker.cli.client.proofs import caller_account
from broker.cli.client.registration import Told, completed, new_client, secret, takes_told, with_caller
from broker.cli.cluster import Access, Cluster, connect
from broker.cli.errors import errors_shown
from broker.cli.manifests import NewClient, title
from broker.cli.output import Output, show
from broker.cli.run import run
from broker.model.client import ClientId


@takes_told
def add(
    name: opt.Client,
    *,
    told: Told,
    opt_in: opt.OptIn = False,
    output: opt.AddOutput = opt.AddFormat.TEXT,
) -> None:
    """Register a client: its account's rights, the broker's right to mint for it, and the TokenClient.

    All is made with your own rights, or nothing is. Objects that this command did not make are never touched.
    """
    with errors_shown():
        new, caller = new_client(name, told), caller_account(told.caller_account)
        made = secret(told, otherwise_proved=bool(new.proofs or caller))

    async def work() -> None:
        with made as handover:
            if new.id.namespace and caller is None:
                completed(new, new.id.namespace, handover)  # what cannot be meant needs no cluster
            async with connect(Access(told.kubeconfig, told.context)) as cluster:
                proved = await with_caller(new, caller, cluster)
                whole = completed(proved, new.id.namespace or cluster.namespace, handover)
                await _judge(cluster, whole, allow_strong=told.allow_strong)
                await opt_namespace_in(cluster, whole, wanted=opt_in)
                _report(whole.id, await create_client(cluster, whole), handover, output)

    run(work())


async def _judge(cluster: Cluster, new: NewClient, *, allow_strong: bool) -> None:
    catalogue = await cluster.catalogue()
    check_words(new, catalogue)
    roles = await read_roles(cluster, new)
    check_denied(new, roles, catalogue)
    refuse_strong(new, judgement := judge(new, roles), allowed=allow_strong)
    say(new, judgement)


def _report(client: ClientId, outcomes: list[Outcome], handover: Handover | None, output: opt.AddFormat) -> None:
    registered = outcomes[-1].created
    if handover and not registered:
        handover.discard()
    if output is opt.AddFormat.JSON:
        document = {
            "client": str(client),
            "created": registered,
            "objects": [_object(made) for made in outcomes],
        }
        return show(document | (handover.document() if handover and registered else {}), Output.JSON)
    for made in outcomes:
        typer.echo(f"{'created' if made.created else 'unchanged'}: {title(made.manifest)}", err=True)
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

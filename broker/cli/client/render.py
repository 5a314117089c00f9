"""``tokenbroker client render``."""

import typer

from broker.cli import options as opt
from broker.cli.client.handover import Handover
from broker.cli.client.judging import judge, refuse_strong, say
from broker.cli.client.proofs import caller_account
from broker.cli.client.registration import Told, completed, new_client, secret, takes_told, with_caller
from broker.cli.cluster import Access, connect
from broker.cli.errors import errors_shown, usage
from broker.cli.manifests import NewClient, manifests
from broker.cli.output import to_yaml
from broker.cli.run import run


@takes_told
def render(name: opt.Client, *, told: Told) -> None:
    """Print the objects of a client as YAML, for git, and make nothing.

    No cluster is asked where the namespace is named, but for the uid of a --caller-account.
    """
    with errors_shown():
        new, caller = new_client(name, told), caller_account(told.caller_account)
        if not (told.secret_file or told.no_secret or new.proofs or caller):
            raise usage("what goes to git carries only the secret's digest: name a --secret-file, or say --no-secret.")
        made = secret(told, otherwise_proved=bool(new.proofs or caller))

    async def work() -> None:
        with made as handover:
            if new.id.namespace and caller is None:
                return _print(completed(new, new.id.namespace, handover), handover, told)
            async with connect(Access(told.kubeconfig, told.context)) as cluster:
                proved = await with_caller(new, caller, cluster)
                return _print(completed(proved, new.id.namespace or cluster.namespace, handover), handover, told)

    run(work())


def _print(new: NewClient, handover: Handover | None, told: Told) -> None:
    """Print the objects; of the rights only those are judged that are written out, for ClusterRoles change."""
    judgement = judge(new, {})
    refuse_strong(new, judgement, allowed=told.allow_strong)
    say(new, judgement)
    typer.echo(to_yaml(manifests(new)), nl=False)
    if handover:
        handover.show()

"""``tokenbroker rules``: what the cluster has, as rules name it."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from broker.cli import options as opt
from broker.cli.cluster import Access, connect
from broker.cli.errors import CommandError
from broker.cli.output import Output, show, table
from broker.cli.run import run
from broker.model.api_resources import ApiResource, Catalogue
from broker.model.api_words import unknown_word

COLUMNS = ("RULE NAME", "NAMESPACED", "VERBS", "SHORT NAMES", "KIND")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rules")(list_rules)


def list_rules(
    word: Annotated[
        str, typer.Argument(metavar="[WORD]", help="A resource as kubectl takes it, an API group, or a part of a name.")
    ] = "",
    *,
    output: opt.OutputFormat = Output.TEXT,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """List what the cluster has: resources and subresources as --rule names them, and their verbs."""

    async def work() -> None:
        async with connect(Access(kubeconfig, context)) as cluster:
            found = matching(await cluster.catalogue(), word)
        if output is not Output.TEXT:
            return show([document(it) for it in found], output)
        return table(COLUMNS, [row for it in found for row in rows(it)])

    run(work())


def matching(catalogue: Catalogue, word: str) -> list[ApiResource]:
    """Return the resource that kubectl takes the word for, else those of the group, else those that contain it.

    Raises CommandError with the nearest right answer where there are none.
    """
    meant = catalogue.resolve(word)
    if meant:
        return [meant]
    named = [group for group in catalogue.groups if group and group == word]
    everything = [it for group in named or catalogue.groups for it in catalogue.in_group(group)]
    found = [it for it in everything if named or word in it.full_name]
    if not found:
        raise CommandError(unknown_word(catalogue, word))
    return found


def rows(it: ApiResource) -> Iterator[list[str]]:
    """Yield a resource's line under :data:`COLUMNS`, and one for each subresource."""
    namespaced = "yes" if it.namespaced else "no"
    yield [it.full_name, namespaced, ",".join((*it.verbs, *it.special_verbs)), ",".join(it.short_names), it.kind]
    for part in it.subresources:
        yield [f"{it.full_name}/{part.name}", namespaced, ",".join(part.verbs), "", ""]


def document(it: ApiResource) -> dict[str, Any]:
    """Return a resource for programs."""
    return {
        "rule": it.full_name,
        "group": it.group,
        "resource": it.plural,
        "kind": it.kind,
        "shortNames": list(it.short_names),
        "namespaced": it.namespaced,
        "verbs": [*it.verbs, *it.special_verbs],
        "subresources": {part.name: list(part.verbs) for part in it.subresources},
    }

"""What services remember of a client by the names of its grants."""

from typing import Any

from broker.model.client import Client


def keep_granted(client: Client, *known: dict[str, Any]) -> None:
    """Drop what is known of grants that a client has no more: whoever renames them could fill the memory."""
    names = {grant.name for grant in client.grants}
    for by_name in known:
        for name in by_name.keys() - names:
            del by_name[name]

"""Finds out what there is to know about a client, with the user's own rights."""

from urllib.parse import quote

from broker.cli.cluster import Cluster
from broker.cli.doctor.client import ClientFacts, grants, needed
from broker.cli.doctor.objects import look
from broker.cli.doctor.rights import Verdict, may
from broker.cli.manifests import BrokerAccount
from broker.cli.resources import Kind
from broker.model.client import ClientId


async def gather(cluster: Cluster, client: ClientId, grant: str, broker: BrokerAccount) -> ClientFacts:
    """Return the facts about a client and one of its grants, or all of them. Raises CommandError."""
    resource = await cluster.get(Kind.TOKEN_CLIENT, client.namespace, client.name)
    wanted = grants(resource, grant) if resource else []
    names = dict.fromkeys(str(it["serviceAccount"]["name"]) for it in wanted)
    where = f"/api/v1/namespaces/{quote(client.namespace, safe='')}"
    return ClientFacts(
        id=client,
        grant=grant,
        resource=resource,
        namespace=await look(cluster, where),
        accounts={name: await look(cluster, f"{where}/serviceaccounts/{quote(name, safe='')}") for name in names},
        mint={name: await _mint(cluster, client.namespace, name, broker) for name in names},
    )


async def _mint(cluster: Cluster, namespace: str, account: str, broker: BrokerAccount) -> tuple[Verdict, ...]:
    return tuple([await may(cluster, broker.namespace, broker.name, it) for it in needed(namespace, account)])

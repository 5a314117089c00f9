"""Find copies in Vault whose TokenClient went, or whose grant is kept there no more, while nobody looked."""

from collections.abc import AsyncIterator, Callable

from broker.model.client import DNS_LABEL, ClientId
from broker.model.vault_path import CopyKey, VaultPlace
from broker.ports import Leader, VaultStore
from broker.services.workqueue import WorkQueue

SWEEP_SECONDS = 600.0


class Sweeper:
    """Lists this cluster's part of Vault while it leads, and hands over what nobody wants; it deletes nothing itself.

    A call for each client: so only one of the replicas lists.

    ``unwanted`` judges by the registry, and raises BrokerError(registry_stale) where that cannot be trusted;
    ``hand_over`` has the copy visited, which looks once more before it removes anything.
    """

    def __init__(
        self,
        *,
        store: VaultStore,
        place: VaultPlace,
        unwanted: Callable[[CopyKey], bool],
        hand_over: Callable[[CopyKey], None],
        leader: Leader,
    ) -> None:
        self._store = store
        self._leader = leader
        self._place = place
        self._unwanted = unwanted
        self._hand_over = hand_over
        self.queue: WorkQueue[str] = WorkQueue("sweep", self.visit, workers=1)
        """Its one key is the cluster's name."""

    async def visit(self, cluster: str) -> float:
        """Look through everything once, as long as this replica leads; the queue's handler."""
        del cluster
        if self._leader.leading:
            async for key in self._keys():
                if not self._leader.leading:
                    break
                if self._unwanted(key):
                    self._hand_over(key)
        return SWEEP_SECONDS

    def lead(self) -> None:
        """Look through everything: this replica leads from now on, and nobody may have done so for a while."""
        self.queue.news(self._place.cluster)

    async def _keys(self) -> AsyncIterator[CopyKey]:
        root = self._place.root
        for namespace in await self._folders(root):
            for name in await self._folders((*root, namespace)):
                client = ClientId.parse(f"{namespace}/{name}")
                if client is not None:
                    for grant in await self._store.children((*root, namespace, name)):
                        if DNS_LABEL.fullmatch(grant):
                            yield CopyKey(client, grant)

    async def _folders(self, path: tuple[str, ...]) -> list[str]:
        names = await self._store.children(path)
        return [name.removesuffix("/") for name in names if name.endswith("/")]

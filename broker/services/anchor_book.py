"""Which anchor each grant's tokens are bound to, made ahead so that issuing writes nothing."""

from broker.model.client import Client, ClientId
from broker.model.token import Anchor


class AnchorBook:
    """Remembers anchors by client and grant; those of a client that was recreated are not those of the new one."""

    def __init__(self) -> None:
        self._anchors: dict[ClientId, tuple[str, dict[str, Anchor]]] = {}

    def get(self, client: Client, grant: str) -> Anchor | None:
        """Return the anchor of a grant, or None while there is none."""
        uid, anchors = self._anchors.get(client.id, ("", {}))
        return anchors.get(grant) if uid == client.uid else None

    def of(self, client_id: ClientId) -> list[Anchor]:
        """Return all anchors that are known of a client, registered or not."""
        return list(self._anchors.get(client_id, ("", {}))[1].values())

    def put(self, client: Client, grant: str, anchor: Anchor) -> None:
        """Remember an anchor."""
        uid, anchors = self._anchors.get(client.id, ("", {}))
        if uid != client.uid:
            anchors = {}
            self._anchors[client.id] = (client.uid, anchors)
        anchors[grant] = anchor

    def drop(self, client: Client, grant: str, anchor: Anchor) -> None:
        """Forget an anchor that turned out to be gone, unless it was replaced already."""
        if self.get(client, grant) == anchor:
            del self._anchors[client.id][1][grant]

    def forget(self, client_id: ClientId) -> None:
        """Forget a client that went."""
        self._anchors.pop(client_id, None)

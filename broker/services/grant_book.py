"""Which grants tokens may be handed out for, made ready ahead so that issuing asks and writes nothing more."""

from dataclasses import dataclass, field

from broker.errors import BrokerError, Fault, Reason
from broker.model.client import Client, ClientId, Grant
from broker.model.prepared import Prepared
from broker.services.by_grant import keep_granted


@dataclass(slots=True)
class _Pages:
    uid: str
    prepared: dict[str, Prepared] = field(default_factory=dict)
    barred: dict[str, Fault] = field(default_factory=dict)


class GrantBook:
    """Remembers by client and grant; nothing of a client that was made again, or of a grant that has changed."""

    def __init__(self) -> None:
        self._clients: dict[ClientId, _Pages] = {}

    def get(self, client: Client, grant: Grant) -> Prepared | None:
        """Return a grant that was prepared as it stands now, or None."""
        pages = self._clients.get(client.id)
        if pages is None or pages.uid != client.uid:
            return None
        prepared = pages.prepared.get(grant.name)
        if prepared is None or not (prepared.grant is grant or prepared.grant == grant):
            return None
        return prepared

    def fault(self, client: Client, grant: Grant) -> Fault | None:
        """Return why a grant is not prepared, where that is known, or None."""
        pages = self._clients.get(client.id)
        return pages.barred.get(grant.name) if pages is not None and pages.uid == client.uid else None

    def refusal(self, client: Client, grant: Grant) -> BrokerError:
        """Return the error for a grant that is not prepared: why not, where that is known."""
        fault = self.fault(client, grant)
        return fault.error() if fault else not_ready()

    def put(self, client: Client, prepared: Prepared) -> None:
        """Let a grant be issued for."""
        pages = self._pages(client)
        pages.prepared[prepared.grant.name] = prepared
        pages.barred.pop(prepared.grant.name, None)

    def bar(self, client: Client, grant: Grant, fault: Fault) -> None:
        """Let nothing more be issued for a grant, and remember why."""
        pages = self._pages(client)
        pages.prepared.pop(grant.name, None)
        pages.barred[grant.name] = fault

    def failed(self, client: Client, grant: Grant, fault: Fault) -> None:
        """Remember why a grant could not be prepared; one that was before may be issued for all the same."""
        if self.get(client, grant) is None:
            self.bar(client, grant, fault)

    def drop(self, client: Client, prepared: Prepared) -> None:
        """Forget what turned out to be wrong, unless it was replaced already."""
        if self.get(client, prepared.grant) == prepared:
            del self._clients[client.id].prepared[prepared.grant.name]

    def withdraw(self, client_id: ClientId, grant: str) -> None:
        """Let nothing more be issued for a grant until it is prepared again."""
        pages = self._clients.get(client_id)
        if pages is not None:
            pages.prepared.pop(grant, None)

    def keep(self, client: Client) -> None:
        """Forget the grants that a client has no more."""
        pages = self._pages(client)
        keep_granted(client, pages.prepared, pages.barred)

    def forget(self, client_id: ClientId) -> None:
        """Forget a client that went, or may have nothing."""
        self._clients.pop(client_id, None)

    def _pages(self, client: Client) -> _Pages:
        pages = self._clients.get(client.id)
        if pages is None or pages.uid != client.uid:
            pages = self._clients[client.id] = _Pages(client.uid)
        return pages


def not_ready() -> BrokerError:
    """Return the error for a grant that is not prepared at the moment."""
    return BrokerError(
        Reason.ANCHOR_MISSING,
        "The grant is being prepared; try again shortly.",
        operator_detail="The grant's anchor was not made yet, or is gone; the TokenClient's condition says why.",
        retry_after=2,
    )

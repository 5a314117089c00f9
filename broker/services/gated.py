"""What callers cost the API server, each behind the gate."""

from broker.model.client import Client
from broker.model.decision import Allowed
from broker.model.prepared import Prepared
from broker.model.sensitive import Sensitive
from broker.ports import LiveToken, Reviewed, Reviewer
from broker.services.gate import Gate
from broker.services.mint import GrantMinter, Issued


class GatedMinter:
    """Mints for callers, in turn with those of other clients. What the broker mints for itself goes past it."""

    def __init__(self, minter: GrantMinter, gate: Gate) -> None:
        self._minter = minter
        self._gate = gate

    def prepared(self, client: Client, allowed: Allowed) -> Prepared:
        """See :meth:`GrantMinter.prepared`."""
        return self._minter.prepared(client, allowed)

    async def mint(self, client: Client, allowed: Allowed) -> Issued:
        """Return a fresh token. Raises BrokerError(overloaded), and those of :meth:`GrantMinter.mint`."""
        async with self._gate.turn(client.id):
            return await self._minter.mint(client, allowed)

    def abandon(self, client: Client, issued: Issued) -> None:
        """See :meth:`GrantMinter.abandon`."""
        self._minter.abandon(client, issued)


class GatedReviewer:
    """Reviews the tokens that callers bring as proofs; implements :class:`broker.ports.Reviewer`.

    Nobody is known by then, so each token is a flow of its own.
    """

    def __init__(self, reviewer: Reviewer, gate: Gate) -> None:
        self._reviewer = reviewer
        self._gate = gate

    async def inspect(self, token: Sensitive) -> LiveToken | None:
        """See :meth:`broker.ports.Reviewer.inspect`. Raises BrokerError(overloaded), too."""
        async with self._gate.turn(hash(token.reveal())):
            return await self._reviewer.inspect(token)

    async def review(self, token: str, audience: str) -> Reviewed | None:
        """See :meth:`broker.ports.Reviewer.review`. Raises BrokerError(overloaded), too."""
        async with self._gate.turn(hash(token)):
            return await self._reviewer.review(token, audience)

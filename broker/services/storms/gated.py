"""What callers cost the API server, each behind the gate."""

from broker.model.client import Client
from broker.model.decision import Allowed
from broker.model.prepared import Prepared
from broker.ports import Reviewed, Reviewer
from broker.services.mint import GrantMinter, Issued
from broker.services.storms.decide_anew import Decider
from broker.services.storms.gate import Gate


class GatedMinter:
    """Mints for callers, in turn with those of other clients. What the broker mints for itself goes past it.

    Who had to wait is decided on anew: it may have been suspended meanwhile, and what wants to end its tokens waits
    for nobody.
    """

    def __init__(self, minter: GrantMinter, gate: Gate, decider: Decider) -> None:
        self._minter = minter
        self._gate = gate
        self._decider = decider

    def prepared(self, client: Client, allowed: Allowed) -> Prepared:
        """See :meth:`GrantMinter.prepared`."""
        return self._minter.prepared(client, allowed)

    async def mint(self, client: Client, allowed: Allowed) -> Issued:
        """Return a fresh token.

        Raises BrokerError: overloaded, and those of :meth:`Decider.again` and :meth:`GrantMinter.mint`.
        """
        async with self._gate.turn(client.id) as waited:
            if waited:
                self._decider.again(client, allowed)
            return await self._minter.mint(client, allowed)

    def abandon(self, client: Client, issued: Issued) -> None:
        """See :meth:`GrantMinter.abandon`."""
        self._minter.abandon(client, issued)


class GatedReviewer:
    """Reviews the tokens that callers bring as proofs; implements :class:`broker.ports.ProofReviewer`.

    Which client is meant counts only once a token is known to be good. So all accounts of a namespace are one flow:
    whoever may make tokens and accounts there makes no longer queue for anybody else.
    """

    def __init__(self, reviewer: Reviewer, gate: Gate) -> None:
        self._reviewer = reviewer
        self._gate = gate

    async def review(self, token: str, audience: str, namespace: str) -> Reviewed | None:
        """See :meth:`broker.ports.ProofReviewer.review`. Raises BrokerError(overloaded), too."""
        async with self._gate.turn(("accounts", namespace)):
            return await self._reviewer.review(token, audience)

"""Why a client gets what it gets: the decision step by step, for the client itself, and nothing handed out."""

from dataclasses import dataclass

from broker.errors import Reason
from broker.model.client import Client
from broker.model.decision import Ask, Denied, Rules, Step, explain
from broker.ports import Clock
from broker.services.authenticate import Caller
from broker.services.board import StatusBoard
from broker.services.grant_book import GrantBook
from broker.services.storms.client_rate import ClientRates


@dataclass(frozen=True, slots=True)
class Explanation:
    """The steps, up to the first that stands in the way."""

    steps: tuple[Step, ...]

    @property
    def denied(self) -> Denied | None:
        """What stands in the way, or None."""
        return self.steps[-1].denied


class Explainer:
    """Explains from memory: no token is minted, and nobody is asked."""

    def __init__(
        self,
        *,
        rules: Rules,
        rates: ClientRates,
        clock: Clock,
        book: GrantBook,
        board: StatusBoard,
        in_vault: bool,
    ) -> None:
        self._rules = rules
        self._rates = rates
        self._clock = clock
        self._book = book
        self._board = board
        self._in_vault = in_vault

    def explain(self, caller: Caller, ask: Ask, *, delivery: bool) -> Explanation:
        """Return what would become of a request now."""
        client, by = caller.client, caller.proved_by
        steps = (
            Step("proof", f"Proved by {by.method}{f', as {by.subject}' if by.subject else ''}."),
            *explain(client, ask, self._rules, self._clock.now(), delivery=delivery),
        )
        if steps[-1].denied is None:
            steps = (*steps, self._rate(client))
        if steps[-1].denied is None:
            steps = (*steps, self._readiness(client, ask, delivery=delivery))
        return Explanation(steps)

    def _rate(self, client: Client) -> Step:
        fault = self._rates.fault(client)
        if fault is not None:
            return Step("rate", fault.detail, Denied(fault.reason, fault.detail))
        rate = self._rates.rate(client)
        return Step("rate", f"Not used up: {rate}." if rate else "There is no limit on how many tokens it gets.")

    def _readiness(self, client: Client, ask: Ask, *, delivery: bool) -> Step:
        if delivery and not self._in_vault:
            return _not_ready(Reason.DELIVERY_NOT_CONFIGURED, "This broker is not connected to a Vault.")
        grant = client.grants[0] if ask.grant is None else client.grant(ask.grant)
        if grant is None:
            raise RuntimeError("a grant was decided on that the client does not have")
        fault = self._board.trial_fault(client.id, grant.name) or self._book.fault(client, grant)
        if fault is not None:
            return _not_ready(
                fault.reason, f"The last trial of the grant failed: {fault.reason}. Its owner can see why."
            )
        if self._book.get(client, grant) is None:
            return _not_ready(Reason.ANCHOR_MISSING, "The grant is being prepared; try again shortly.")
        return Step("ready", "The grant is prepared, and its last trial succeeded.")


def _not_ready(reason: Reason, detail: str) -> Step:
    return Step("ready", detail, Denied(reason, detail))

"""Put a fresh token into Vault because its client asked for it (``deliver: vault``)."""

from broker.errors import BrokerError, Reason
from broker.model.audit_record import Origin
from broker.model.client import Client
from broker.model.decision import Ask, Rules, decide_delivery
from broker.ports import Clock
from broker.services.issue import Issuer
from broker.services.rotation.rotate import Delivered, Rotator
from broker.services.storms.client_rate import ClientRates
from broker.services.storms.gate import Gate


class Deliverer:
    """Decides like :class:`Issuer`, and leaves the writing to the rotator, which owns the copy.

    Deliveries take turns at a gate of their own: a Vault that hangs must not hold up who wants nothing of it.
    """

    def __init__(
        self,
        *,
        rotator: Rotator | None,
        issuer: Issuer,
        gate: Gate,
        rates: ClientRates,
        rules: Rules,
        clock: Clock,
    ) -> None:
        self._rotator = rotator
        self._issuer = issuer
        self._gate = gate
        self._rates = rates
        self._rules = rules
        self._clock = clock

    async def deliver(self, client: Client, ask: Ask, origin: Origin) -> Delivered:
        """Return what was written. Raises BrokerError: overloaded, the decision's reason, or the rotator's."""
        try:
            return await self._deliver(client, ask, origin)
        except BrokerError as error:
            self._issuer.note_refusal(client, ask, origin, error)
            raise

    async def _deliver(self, client: Client, ask: Ask, origin: Origin) -> Delivered:
        allowed = self._issuer.permitted(decide_delivery(client, ask, self._rules, self._clock.now()))
        if self._rotator is None:
            raise BrokerError(Reason.DELIVERY_NOT_CONFIGURED, "This broker is not connected to a Vault.")
        self._rates.take(client)
        try:
            async with self._gate.turn(client.id):  # what has changed meanwhile, the rotator looks at itself
                return await self._rotator.deliver(client, allowed.grant.name, origin)
        except BaseException:  # also where the caller is gone
            self._rates.give_back(client)
            raise

"""Issue nothing unless the admission policies that limit the broker are in force, as last tried."""

import asyncio
from typing import Protocol

import structlog

from broker.errors import BrokerError, Reason, raise_if
from broker.model.anchor import AnchorId
from broker.model.client import Client
from broker.model.token import Anchor, MintedToken, TokenSpec
from broker.ports import Anchors, Clock, Minter

log = structlog.get_logger(__name__)

EVERY_SECONDS = 60.0
AGAIN_SECONDS = 5.0
"""How soon it is tried again where a policy was missing, or nothing could be found out."""

COUNTS_SECONDS = 300.0
"""How long a trial counts where those after it could not be made."""


class Probe(Protocol):
    """Tries what must be refused."""

    async def missing(self) -> tuple[str, ...]:
        """Return the policies that did not refuse. Raises BrokerError where that cannot be found out."""


class CanaryMetrics(Protocol):
    """What is told about the policies."""

    def policies_missing(self, names: tuple[str, ...]) -> None:
        """Set which policies are not in force."""


class Canary:
    """Tries the policies once a minute. A mismatch of an account's name opens them silently: only trying tells."""

    def __init__(self, probe: Probe, clock: Clock, metrics: CanaryMetrics) -> None:
        self._probe = probe
        self._clock = clock
        self._metrics = metrics
        self._missing: tuple[str, ...] = ()
        self._tried_at: float | None = None
        self._why = "they were not tried yet"
        self.looked = asyncio.Event()
        """Set once they were tried, or it was tried in vain: before that nobody can say anything."""

    def fault(self) -> BrokerError | None:
        """Return why nothing may be issued, or None."""
        if self._tried_at is None or self._clock.monotonic() - self._tried_at > COUNTS_SECONDS:
            return _unproved(self._why)
        return _missing(self._missing) if self._missing else None

    def require(self) -> None:
        """Raise BrokerError(policy_missing) where nothing may be issued."""
        raise_if(self.fault())

    async def run(self) -> None:
        """Try them until cancelled."""
        while True:
            found_out = await self.look()
            await asyncio.sleep(EVERY_SECONDS if found_out and self.fault() is None else AGAIN_SECONDS)

    async def look(self) -> bool:
        """Try them once; tell whether that could be done."""
        try:
            missing = await self._probe.missing()
        except BrokerError as error:
            self._why = error.operator_detail
            log.warning("canary.not_tried", reason=str(error.reason), detail=error.operator_detail)
            self.looked.set()
            return False
        if missing != self._missing or self._tried_at is None:
            log.log(30 if missing else 20, "canary.tried", missing=list(missing))
        self._missing, self._tried_at = missing, self._clock.monotonic()
        self._metrics.policies_missing(missing)
        self.looked.set()
        return True


class GuardedMinter:
    """Mints while the canary lives; implements :class:`broker.ports.Minter`."""

    def __init__(self, minter: Minter, canary: Canary) -> None:
        self._minter = minter
        self._canary = canary

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """Return a token. Raises BrokerError(policy_missing), and those of :meth:`broker.ports.Minter.mint`."""
        self._canary.require()
        return await self._minter.mint(spec)

    async def rehearse(self, spec: TokenSpec) -> MintedToken:
        """Try out :meth:`mint`; raises what it would raise."""
        self._canary.require()
        return await self._minter.rehearse(spec)


class GuardedAnchors:
    """Makes anchors while the canary lives, finds and deletes them always; implements :class:`broker.ports.Anchors`."""

    def __init__(self, anchors: Anchors, canary: Canary) -> None:
        self._anchors = anchors
        self._canary = canary

    async def ensure(self, client: Client, which: AnchorId, parent: Anchor | None = None) -> Anchor:
        """Return an anchor. Raises BrokerError(policy_missing), and those of :meth:`broker.ports.Anchors.ensure`."""
        self._canary.require()
        return await self._anchors.ensure(client, which, parent)

    async def find(self, client: Client, which: AnchorId) -> Anchor | None:
        """See :meth:`broker.ports.Anchors.find`."""
        return await self._anchors.find(client, which)

    async def delete(self, namespace: str, name: str, uid: str | None = None) -> bool:
        """See :meth:`broker.ports.Anchors.delete`: what ends tokens needs no leave."""
        return await self._anchors.delete(namespace, name, uid)


def _missing(names: tuple[str, ...]) -> BrokerError:
    listed = ", ".join(names)
    return _fault(f"The admission policy {listed} did not refuse what it must: apply your overlay again.")


def _unproved(why: str) -> BrokerError:
    return _fault(f"The admission policies that limit the broker could not be tried: {why}")


def _fault(operator_detail: str) -> BrokerError:
    return BrokerError(
        Reason.POLICY_MISSING,
        "The broker's own limits are not known to be in force, so it issues nothing; its operators have been told.",
        operator_detail=operator_detail,
        retry_after=10,
    )

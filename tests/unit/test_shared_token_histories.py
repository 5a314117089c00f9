"""Random histories of requests, changes and failures: each hand-out of a shared token is right when it is made."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from broker.errors import BrokerError, Fault, Reason
from broker.model.anchor import grant_anchor
from broker.model.audit_record import Issuance
from broker.model.client import Client
from broker.model.decision import Ask
from broker.model.limits import NamespaceLimits
from broker.model.proof import ProvedBy
from broker.ports import Registration
from broker.services.mint import Issued
from tests.support.storm import BY_SECRET, REUSE, Storm, instances

HISTORIES = 60
"""For each seed."""

OFTEN = {"ask": 10, "answer": 6, "mend": 5}
PROOFS = (BY_SECRET, ProvedBy("publicKeys", "shop/reporter"))


class History:
    """Does things at random, and looks at each hand-out at the moment in which it is written down."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a history, not a secret
        self.storm = Storm()
        self.log: list[str] = []
        self.tasks: list[asyncio.Task[Issued]] = []
        self.asked: dict[str, float] = {}
        self.first: dict[str, tuple[float, tuple[object, ...]]] = {}
        self.wrong: list[str] = []
        self.shared = 0
        self.written = self.storm.audit.issued
        self.storm.audit.issued = self.look  # type: ignore[method-assign]
        self.steps: dict[str, Callable[[], Awaitable[None]]] = {
            "ask": self.ask,
            "answer": self.answer,
            "mend": self.mend,
            "fail": self.fail,
            "hang up": self.hang_up,
            "suspend": lambda: self.edit(suspended=True),
            "suspend for a moment": self.suspend_for_a_moment,
            "edit": lambda: self.edit(owner=f"owner-{self.random.random()}"),
            "revoke": self.revoke,
            "remove": self.remove,
            "make again": self.make_again,
            "find": self.find,
            "prepare": self.prepare,
            "opt out": lambda: self.allow(opted_in=False),
            "pass": self.pass_time,
        }

    @property
    def registration(self) -> Registration | None:
        """The client as it is registered now."""
        return self.storm.registry.known.get(instances().id)

    async def run(self) -> None:
        """Let things happen, and let everything come to an end."""
        await self.make_again()
        for _ in range(self.random.randint(10, 40)):
            [name] = self.random.choices(list(self.steps), [OFTEN.get(name, 1) for name in self.steps])
            self.log.append(name)
            await self.steps[name]()
            await self.settle()
        self.storm.mints.open.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def look(self, record: Issuance) -> None:
        """Compare a hand-out with how things are."""
        self.written(record)
        now, known = self.storm.clock.monotonic(), self.registration
        client = known.client if known else None
        if client is None or client.suspended or not self.storm.limits.opted_in:
            self.wrong.append(f"{record.jti} was handed out to who may have nothing")
            return
        grant = client.grant(record.grant)
        prepared = self.storm.book.get(client, grant) if grant else None
        if prepared is None or prepared.anchor.uid != self.storm.cluster.tokens[record.jti.removeprefix("jti-")][0]:
            self.wrong.append(f"{record.jti} was handed out on an anchor that is not the grant's")
        whose = (client.uid, client.generation, client.rotate_requested, record.origin.proved_by, record.grant)
        since, before = self.first.setdefault(record.jti, (now, whose))
        if whose != before:
            self.wrong.append(f"{record.jti} was handed out as {whose}, and before as {before}")
        if now - since >= REUSE and self.asked[record.origin.request_id] > since:
            self.wrong.append(f"{record.jti} was handed out {now - since} s later")
        self.shared += record.reused

    async def ask(self) -> None:
        """Ask as one of two callers for one of two grants, by what is registered now."""
        known = self.registration
        if known is None or known.client is None:
            return
        for _ in range(self.random.randint(1, 4)):
            grant, by = self.random.choice(("default", "default", "other")), self.random.choice(PROOFS)
            self.tasks.append(self.storm.ask(known.client, Ask(grant), by))
            self.asked[f"request-{self.storm.numbers}"] = self.storm.clock.monotonic()

    async def answer(self) -> None:
        """Let mints through for a moment."""
        self.storm.mints.open.set()
        await self.settle()
        self.storm.mints.open.clear()

    async def fail(self) -> None:
        """Let mints fail for a moment."""
        self.storm.mints.fault = BrokerError(Reason.KUBERNETES_UNAVAILABLE, "away")
        await self.answer()
        self.storm.mints.fault = None

    async def hang_up(self) -> None:
        """Have somebody go away."""
        if self.tasks:
            self.random.choice(self.tasks).cancel()

    async def edit(self, **changes: object) -> None:
        """Change the specification: the grants are what they were."""
        known = self.registration
        if known is not None and known.client is not None:
            client = replace(known.client, generation=known.client.generation + 1, **changes)  # type: ignore[arg-type]
            self.put(client)

    async def suspend_for_a_moment(self) -> None:
        """Suspend and resume before anybody has a turn: the broker hears of both."""
        await self.edit(suspended=True)
        await self.edit(suspended=False)

    async def mend(self) -> None:
        """Let the client be served again."""
        await self.allow(opted_in=True)
        known = self.registration
        if known is None or known.client is None:
            await self.make_again()
        elif known.client.suspended:
            await self.edit(suspended=False)
        await self.prepare()

    async def revoke(self) -> None:
        """Do what ``client revoke-all`` does; the broker has not made new anchors yet."""
        known = self.registration
        if known is not None and known.client is not None:
            self.storm.cluster.anchors.clear()
            self.put(replace(known.client, rotate_requested=self.storm.clock.now()))

    async def remove(self) -> None:
        """Remove the client."""
        self.storm.registry.known.pop(instances().id, None)
        self.storm.shared.changed(instances().id)

    async def make_again(self) -> None:
        """Register a client of that name."""
        await self.storm.register(instances(uid=f"uid-{self.random.random()}"))
        self.storm.shared.changed(instances().id)

    async def find(self) -> None:
        """Find that an account may do what it must not, and end its tokens."""
        known = self.registration
        if known is not None and known.client is not None:
            grant = self.random.choice(known.client.grants[:2])
            self.storm.book.bar(known.client, grant, Fault(Reason.ACCESS_NOT_AS_DECLARED, "denied"))
            self.storm.cluster.anchors.pop(grant_anchor(known.client.uid, grant).name, None)

    async def prepare(self) -> None:
        """Visit the client."""
        known = self.registration
        if known is not None and known.client is not None and not known.client.suspended:
            await self.storm.register(known.client)

    async def allow(self, *, opted_in: bool) -> None:
        """Change the label of the namespace."""
        self.storm.limits = NamespaceLimits(opted_in=opted_in)

    async def pass_time(self) -> None:
        """Let time pass."""
        self.storm.clock.pass_(self.random.choice([1, REUSE / 2, REUSE, 2 * REUSE]))

    def put(self, client: Client) -> None:
        """Register a change that the broker hears of and has not visited yet."""
        known = self.registration
        assert known is not None
        self.storm.registry.known[client.id] = replace(known, client=client, generation=client.generation)
        self.storm.shared.changed(client.id)

    async def settle(self) -> None:
        """Let everybody get as far as he can."""
        for _ in range(12):
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(3))
async def test_each_hand_out_is_right_when_it_is_made(seed: int) -> None:
    """Whatever happened since the token was minted, or since its request was decided first."""
    shared = 0
    for number in range(HISTORIES):
        history = History(seed * HISTORIES + number)
        async with asyncio.timeout(10):
            await history.run()
        ends = await asyncio.gather(*history.tasks, return_exceptions=True)
        bugs = [
            it
            for it in ends
            if isinstance(it, BaseException) and not isinstance(it, BrokerError | asyncio.CancelledError)
        ]
        shared += history.shared

        assert (history.wrong, bugs) == ([], []), history.log
        assert history.storm.shared._flights == {}, history.log
        with suppress(KeyError):
            await history.remove()
        assert len(history.storm.shared) == 0, history.log

    assert shared > HISTORIES

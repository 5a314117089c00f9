"""Random histories of a client and its broker: in the end nothing lives that should have ended, and all else does."""

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from broker.errors import BrokerError
from broker.model.anchor import grant_anchor, vault_anchor
from broker.model.client import Client
from tests.support.endings import AWAY, FORBIDDEN, WEB, EndingWorld, web

HISTORIES = 150
"""For each seed."""


class History:
    """Does things at random, and knows which tokens must have ended, and which a grant may still have."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a history, not a secret
        self.world = EndingWorld()
        self.log: list[str] = []
        self.held: dict[str, str] = {}
        self.over: set[str] = set()
        self.steps: dict[str, Callable[[], Awaitable[None]]] = {
            "suspend": lambda: self.edit(suspended=True),
            "resume": lambda: self.edit(suspended=False),
            "take one out": lambda: self.edit(grants=self.client.grants[1:] or self.client.grants),
            "put all back": lambda: self.edit(grants=web().grants),
            "another account": self.move,
            "find": self.find,
            "mend": self.mend,
            "refuse": self.refuse,
            "issue": self.issue,
            "visit": self.visit,
            "hurry": self.hurry,
            "lose the lead": self.follow,
        }

    @property
    def client(self) -> Client:
        """The client as it is registered now."""
        return self.world.cluster.resources[WEB].client

    async def run(self) -> None:
        """Let things happen, and let everything come to an end."""
        self.world.register(web())
        self.world.reconciler.changed(WEB)
        await self.visit()
        for _ in range(self.random.randint(4, 14)):
            name = self.random.choice(list(self.steps))
            self.log.append(name)
            await self.steps[name]()
            self.world.clock.pass_(self.random.choice([0, 1, 70, 700]))
        await self.mend()
        for _ in range(3):
            await self.visit()

    async def edit(self, **changes: object) -> None:
        """Change the client; what its tokens hung on before may be over by that."""
        before = {one.name: one.service_account for one in self.client.grants}
        after = replace(self.client, generation=self.client.generation + 1, **changes)  # type: ignore[arg-type]
        now = {one.name: one.service_account for one in after.grants} if not after.suspended else {}
        self.over |= {token for token, name in self.held.items() if now.get(name) != before.get(name)}
        self.held = {token: name for token, name in self.held.items() if token not in self.over}
        self.world.register(after)
        self.world.reconciler.changed(WEB)

    async def move(self) -> None:
        """Give a grant another account."""
        moved = replace(self.client.grants[0], service_account=self.random.choice(["reporter", "other"]))
        await self.edit(grants=(moved, *self.client.grants[1:]))

    async def find(self) -> None:
        """Let an account be able to do what is denied; all tokens of it are over when that is noticed."""
        self.world.cluster.denied = {self.random.choice(["reporter", "other"])}

    async def mend(self) -> None:
        """Let everything work."""
        self.world.cluster.delete_fault, self.world.cluster.refused = None, {}

    async def refuse(self) -> None:
        """Let deletions fail, all or those of one anchor."""
        fault = self.random.choice([AWAY, FORBIDDEN])
        if self.random.random() < 0.5:
            self.world.cluster.delete_fault = fault
        else:
            which = self.random.choice([grant_anchor, vault_anchor])
            self.world.cluster.refused = {which(self.client.uid, self.client.grants[0]).name: fault}

    async def issue(self) -> None:
        """Hand a token out, where one is."""
        name = self.random.choice(self.client.grants).name
        with suppress(BrokerError):
            self.held[(await self.world.issue(grant_name=name))[1]] = name

    async def visit(self) -> None:
        """Let the broker visit everything once."""
        for work in (self.world.reconciler.visit, self.world.board.write):
            with suppress(BrokerError):
                await work(WEB)
        for key in sorted(self.world.keys, key=str):
            with suppress(BrokerError):
                await self.world.rotator.visit(key)

    async def hurry(self) -> None:
        """Let it end what has to end."""
        with suppress(BrokerError):
            await self.world.reconciler.hurry(WEB)

    async def follow(self) -> None:
        """Let it lose the lead and win it again; what was taken back and is owed yet would be forgotten by that."""
        await self.mend()
        await self.visit()
        self.world.cluster.leading = False
        self.world.reconciler.stand_back()
        await self.visit()
        await self.issue()
        self.world.cluster.leading = True
        self.world.reconciler.lead()
        await self.visit()

    def wrong(self) -> dict[str, set[str]]:
        """Return what is not as it should be."""
        denied = self.world.cluster.denied
        barred = {one.name for one in self.client.grants if one.service_account in denied}
        alive = {token for token in self.over if self.world.accepts(token)}
        alive |= {token for token, name in self.held.items() if name in barred and self.world.accepts(token)}
        good = [one for one in self.client.grants if one.name not in barred and not self.client.suspended]
        wanted = {grant_anchor(self.client.uid, one).name for one in good}
        tops = {name for name in self.world.tops() if name not in self.world.wanted()}
        owed = {"orphans"} if self.world.orphans() else set()
        found = {"alive": alive, "missing": wanted - self.world.tops(), "too many": tops, "counted": owed}
        return {what: names for what, names in found.items() if names}


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_nothing_lives_that_should_have_ended(seed: int) -> None:
    """Edits there and back, findings, deletions that fail, leads that are lost: what is owed is paid."""
    for number in range(HISTORIES):
        history = History(seed * HISTORIES + number)
        await history.run()

        assert history.wrong() == {}, (history.log, history.client, history.world.cluster.denied)

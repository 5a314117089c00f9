"""Who leads is told, the latest last; what cannot be told is tried again."""

import asyncio

from broker.errors import BrokerError
from broker.kube.answer import unavailable
from broker.services.lead_news import LeadNews
from tests.support.processes import until


class Records:
    """Notes what was told; ``fault`` is raised once."""

    def __init__(self) -> None:
        self.told: list[bool] = []
        self.fault: BrokerError | None = None

    async def record(self, *, leading: bool) -> None:
        """Note one."""
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        self.told.append(leading)


async def told(records: Records, count: int) -> None:
    """Wait until so much was told."""

    async def enough() -> bool:
        return len(records.told) >= count

    await until(enough, what="it is told")


async def test_each_change_is_told() -> None:
    """Also after one that could not be told at first."""
    records = Records()
    news = LeadNews(records)
    running = asyncio.create_task(news.queue.run())
    records.fault = unavailable("away")
    news.changed(leading=True)
    await told(records, 1)
    news.changed(leading=False)
    await told(records, 2)
    running.cancel()
    await asyncio.wait([running])

    assert records.told == [True, False]


async def test_what_was_overtaken_is_not_told() -> None:
    """Who gains the lead and loses it before anybody was told is told of as one that leads no more."""
    records = Records()
    news = LeadNews(records)
    news.changed(leading=True)
    news.changed(leading=False)
    running = asyncio.create_task(news.queue.run())
    await told(records, 1)
    running.cancel()
    await asyncio.wait([running])

    assert records.told == [False]

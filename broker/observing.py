"""Names who knows what is asked for at each scrape, and whether the broker is ready."""

import asyncio
from collections.abc import Iterable
from typing import Any

from broker.errors import Fault, Reason
from broker.kube.token_requests import unverified_claims
from broker.metrics.scraped import Scraped
from broker.parts import Parts
from broker.services.first_pass import FirstPass
from broker.services.workqueue import WorkQueue


def observe(parts: Parts, first: FirstPass, queues: Iterable[WorkQueue[Any]]) -> Scraped:
    """Let the metrics ask the parts and the queues, and return where more can be named."""
    scraped = parts.metrics.scraped
    scraped.leader(lambda: parts.leadership.leading)
    scraped.unready(lambda: _reason(parts, first))
    scraped.source("clients", lambda: parts.clients.registry.age)
    if parts.namespaces is not None:
        namespaces = parts.namespaces
        scraped.source("namespaces", lambda: namespaces.age)
    for queue in queues:
        scraped.queue(queue.name, queue.__len__, queue.overdue)
    scraped.credential("kubernetes", lambda: _expiry(parts.session.token))
    scraped.waiting(lambda: parts.gate.waiting + parts.deliveries.waiting)
    scraped.tasks(lambda: len(asyncio.all_tasks()))
    return scraped


def not_ready(parts: Parts, first: FirstPass) -> str | None:
    """Return why requests cannot be served, in words, or None where they can."""
    fault = _unready(parts, first)
    return f"{fault.reason}: {fault.message}" if fault is not None else None


def _unready(parts: Parts, first: FirstPass) -> Fault | None:
    if not parts.clients.registry.fresh:
        return _unheard("registered clients", parts.clients.registry.trouble)
    if parts.namespaces is not None and not parts.namespaces.fresh:
        return _unheard("Namespaces", parts.namespaces.trouble)
    fault = parts.canary.fault() if parts.canary is not None else None
    return Fault.of(fault) if fault is not None else first.left()


def _unheard(of: str, trouble: str) -> Fault:
    return Fault(Reason.REGISTRY_STALE, f"{of}: {trouble}" if trouble else of)


def _reason(parts: Parts, first: FirstPass) -> Reason | None:
    fault = _unready(parts, first)
    return fault.reason if fault is not None else None


def _expiry(token: str) -> float:
    """Return when a token expires; NaN where it does not say so."""
    try:
        return float(unverified_claims(token)["exp"])
    except (ValueError, KeyError, TypeError):
        return float("nan")

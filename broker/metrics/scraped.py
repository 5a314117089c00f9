"""Every metric of the broker that is asked for at each scrape, of whoever knows it then: so none tells what was."""

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Gauge

from broker.errors import Reason

UNREADY = (Reason.REGISTRY_STALE, Reason.POLICY_MISSING, Reason.ANCHOR_MISSING)
"""Why a broker may be not ready."""


class Scraped:
    """Gauges that ask. A broker has those series for which somebody was named who knows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        self._leader = gauge("tokenbroker_leader", "1 on the replica that leads.")
        self._unready = gauge("tokenbroker_unready", "1 where the broker is not ready, by reason.", ["reason"])
        self._age = gauge(
            "tokenbroker_registry_age_seconds",
            "Time since a source was heard of; infinite where it never was.",
            ["source"],
        )
        self._queued = gauge("tokenbroker_queue_length", "Keys that wait or are being visited.", ["queue"])
        self._late = gauge(
            "tokenbroker_queue_overdue_seconds",
            "How late the oldest key is that is due and not being visited.",
            ["queue"],
        )
        self._credentials = gauge(
            "tokenbroker_credential_expiry_timestamp_seconds",
            "When a credential of the broker's own expires, in seconds since 1970.",
            ["credential"],
        )
        self._waiting = gauge(
            "tokenbroker_requests_waiting",
            "Requests that wait for their turn at the API server, or for one to deliver into Vault.",
        )
        self._tasks = gauge("tokenbroker_tasks", "Tasks of the event loop; their number should not grow forever.")

    def leader(self, leading: Callable[[], bool]) -> None:
        """Ask who leads, so that a process which slept does not tell what was."""
        self._leader.set_function(leading)

    def unready(self, reason: Callable[[], Reason | None]) -> None:
        """Ask why the broker is not ready; None where it is."""
        for one in UNREADY:
            self._unready.labels(one.value).set_function(partial(_is, one, reason))

    def source(self, name: str, age: Callable[[], float]) -> None:
        """Ask how many seconds ago what the broker follows was heard of."""
        self._age.labels(name).set_function(age)

    def queue(self, name: str, length: Callable[[], int], overdue: Callable[[], float]) -> None:
        """Ask how many keys wait in a queue, and how many seconds the oldest is late."""
        self._queued.labels(name).set_function(length)
        self._late.labels(name).set_function(overdue)

    def credential(self, name: str, expiry: Callable[[], float]) -> None:
        """Ask when a credential of the broker's own expires, in seconds since 1970."""
        self._credentials.labels(name).set_function(expiry)

    def waiting(self, count: Callable[[], int]) -> None:
        """Ask how many requests wait for their turn."""
        self._waiting.set_function(count)

    def tasks(self, count: Callable[[], int]) -> None:
        """Ask how many tasks there are."""
        self._tasks.set_function(count)


def _is(wanted: Reason, reason: Callable[[], Reason | None]) -> bool:
    return reason() is wanted

"""Leadership by a Lease: who may take it, and for how long to believe it. Pure: times and durations are passed in.

The dates in a Lease are for people to read. What counts is how long a record has stayed as it is by one's own
monotonic clock, so clocks of different machines are never compared (as in client-go's leaderelection).
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self


@dataclass(frozen=True, slots=True)
class Term:
    """What is written into the Lease. ``holder`` is empty where nobody leads.

    ``unfit``: the holder cannot do a leader's work, and gives the Lease up for whoever can. ``candidate`` is who has
    said so since; empty where nobody has.
    """

    holder: str
    duration_seconds: int
    acquired_at: datetime | None
    renewed_at: datetime | None
    transitions: int
    unfit: bool = False
    candidate: str = ""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A Lease as it was read: ``uid`` is that of the object, and ``version`` changes with each write."""

    term: Term
    uid: str
    version: str


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a lease lasts for others, and everything shorter that follows from it; in seconds.

    ``lead`` counts from before the renewal was sent, ``duration`` from after somebody else saw it: between the two
    lies a third of the duration in which nobody leads, for calls under way and for clocks that run unevenly.
    """

    duration: int

    @property
    def lead(self) -> float:
        """How long a renewal lets its sender lead."""
        return self.duration * 2 / 3

    @property
    def margin(self) -> float:
        """How long a call may take that only a leader may make: it is given up before another replica may lead."""
        return self.duration - self.lead

    @property
    def renew(self) -> float:
        """When to renew, at the latest: early enough for a second try within ``lead``."""
        return self.duration / 3

    @property
    def retry(self) -> float:
        """When to look again, at the latest: after a failure, and while somebody else leads."""
        return self.duration / 10

    @property
    def call(self) -> float:
        """How long one attempt may take."""
        return self.duration / 6


@dataclass(frozen=True, slots=True)
class Observed:
    """Since when a record is known as it is, by the observer's monotonic clock, once its answer had come."""

    version: str
    since: float

    @classmethod
    def first(cls, record: LeaseRecord, now: float, before: Self | None) -> Self:
        """Return the observation of a record: the one ``before`` where nothing was written in between."""
        return before if before is not None and before.version == record.version else cls(record.version, now)


def may_take(record: LeaseRecord, identity: str, observed_seconds: float) -> bool:
    """Tell whether a record may be written over: one's own, nobody's, or not renewed for as long as it says."""
    term = record.term
    return term.holder in {"", identity} or observed_seconds >= term.duration_seconds


def may_stand(record: LeaseRecord, identity: str) -> bool:
    """Tell whether to offer to lead: somebody else does who cannot do the work, and nobody has offered yet."""
    term = record.term
    return term.holder not in {"", identity} and term.unfit and not term.candidate


def standing_for(term: Term, identity: str) -> Term:
    """Return the term of another leader with one's offer in it: its next renewal fails, and it sees why."""
    return replace(term, candidate=identity)


def next_term(before: Term | None, identity: str, duration: int, now: datetime, *, unfit: bool = False) -> Term:
    """Return the term to write over ``before``; None is for a Lease that does not exist yet."""
    if before is not None and before.holder == identity:
        return Term(identity, duration, before.acquired_at, now, before.transitions, unfit)
    return Term(identity, duration, now, now, 0 if before is None else before.transitions + 1, unfit)


def released(term: Term, now: datetime) -> Term:
    """Return the term that ends one's own at once: held by nobody, for the shortest time that a Lease can say."""
    return Term("", 1, term.acquired_at, now, term.transitions)

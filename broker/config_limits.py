"""The sections of the configuration that bound clients and callers."""

from typing import Annotated

from pydantic import Field

from broker.config_values import DnsLabel, ProofKind, Seconds, Section, Ttl
from broker.model.rate import MAX_PER_MINUTE

PerMinute = Annotated[int, Field(strict=True, ge=1, le=MAX_PER_MINUTE)]


class RateConfig(Section):
    """How many tokens a client may be handed out."""

    per_minute: PerMinute
    burst: PerMinute | None = None
    """How many of them at once; as many as in a minute where left out."""


class LimitConfig(Section):
    """What is allowed in some namespaces, whoever writes TokenClients there; the first entry that matches counts."""

    namespaces: tuple[DnsLabel, ...] = ()
    """By name; any where left out."""
    namespace_labels: dict[str, str] = Field(default_factory=dict)
    """By labels, all of which a namespace must carry."""
    max_ttl: Ttl | None = None
    proofs: frozenset[ProofKind] | None = None
    strong_accounts: bool = False
    unbound_tokens: bool = False
    rate: RateConfig | None = None
    """Of each client; its own can only be less."""


class QueueConfig(Section):
    """What callers cost the API server: how much of it at a time, and who waits for how long."""

    concurrency: Annotated[int, Field(ge=1, le=128)] = 8
    """How many calls are made at a time."""
    waiting: Annotated[int, Field(ge=1, le=100_000)] = 4096
    """How many requests wait at most."""
    waiting_per_client: Annotated[int, Field(ge=1, le=100_000)] = 1024
    wait_seconds: Seconds = 5.0
    """How long a request waits at most. One that would wait longer is refused at once."""

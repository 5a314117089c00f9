"""Every metric of the broker that is counted when something happens; what can be known ahead is at zero already.

Tokens, secrets, subjects and callers' addresses are never labels. Clients are, but only those that proved
themselves or are registered, so strangers cannot make series. What is asked for at each scrape is in
:mod:`broker.metrics.scraped`. docs/metrics.md lists every metric, with a bound on the number of its series.
Names follow https://prometheus.io/docs/practices/naming/.
"""

from collections.abc import Collection, Iterable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from broker import __version__
from broker.errors import ProofFailure, Reason
from broker.metrics.durations import Durations
from broker.metrics.gate import Waits
from broker.metrics.scraped import Scraped
from broker.metrics.series import ClientSeries
from broker.metrics.vault import VaultMetrics
from broker.model.client import ClientId
from broker.model.policies import TRIED
from broker.tracing import exemplar

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""From a TokenRequest that nothing holds up to the deadline of a call."""

TOKEN_REQUEST_FAILURES = (
    Reason.KUBERNETES_UNAVAILABLE,
    Reason.KUBERNETES_TIMEOUT,
    Reason.KUBERNETES_REJECTED,
    Reason.BROKER_NOT_AUTHORIZED,
    Reason.SERVICE_ACCOUNT_MISSING,
    Reason.ANCHOR_MISSING,
)
"""Why a TokenRequest may make no token."""


class Metrics:
    """The metrics; one object a process, handed to whoever counts.

    Series that say when a counter was made (``_created``) are switched off: they would double the page, and
    Prometheus sees by itself when a counter begins anew.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.scraped = Scraped(self.registry)
        self.vault = VaultMetrics(self.registry)
        self.waits = Waits(self.registry, LATENCY_BUCKETS)
        self._counter = partial(Counter, registry=self.registry)
        self._gauge = partial(Gauge, registry=self.registry)
        self._durations = partial(Durations, self.registry, buckets=LATENCY_BUCKETS)
        self._answering = 0
        self._gauge("tokenbroker_build_info", "The running version.", ["version"]).labels(__version__).set(1)
        self._define_requests()
        self._define_kubernetes()
        self._define_clients()
        self._start_at_zero()

    def _define_requests(self) -> None:
        counter = self._counter
        self._requests = self._durations(
            "tokenbroker_request_duration_seconds", "Time to answer a request for a token, issued or not."
        )
        in_flight = self._gauge("tokenbroker_requests_in_flight", "Requests for a token being answered now.")
        in_flight.set_function(lambda: self._answering)
        self._problems = counter("tokenbroker_http_problems", "Problem documents sent, by code.", ["code"])
        self._proofs = counter(
            "tokenbroker_authentication_failures", "Callers that did not prove who they are.", ["reason"]
        )
        self._keys_fetched = counter(
            "tokenbroker_issuer_key_fetches", "Fetches of an issuer's keys, by outcome.", ["issuer", "outcome"]
        )
        self._audit_failures = counter("tokenbroker_audit_failures", "Audit records that could not be written.")

    def _define_kubernetes(self) -> None:
        self._token_requests = self._durations(
            "tokenbroker_token_request_duration_seconds", "Time the API server took for one TokenRequest."
        )
        self._kubernetes_failures = self._counter(
            "tokenbroker_token_request_failures", "TokenRequests that made no token, by reason.", ["reason"]
        )
        self._clients = self._gauge("tokenbroker_registered_clients", "TokenClients, by validity.", ["valid"])
        self._files_broken = self._gauge(
            "tokenbroker_registry_broken_files", "Files of the registry's directory that serve nobody."
        )
        self._watch = self._counter(
            "tokenbroker_watch_restarts", "Watches that broke before their time, by reason.", ["reason"]
        )
        self._ended = self._counter(
            "tokenbroker_grants_ended", "How often all tokens of a grant were ended, by why.", ["reason"]
        )
        self._policies = self._gauge(
            "tokenbroker_policy_missing", "1 where an admission policy did not refuse what it must.", ["policy"]
        )
        self._leader_changes = self._counter(
            "tokenbroker_leader_changes", "How often this replica began to lead or ceased to.", ["change"]
        )
        self._events_lost = self._counter("tokenbroker_events_lost", "Kubernetes Events that could not be recorded.")

    def _define_clients(self) -> None:
        self._issued = self._counter_of("tokens_issued", "Tokens handed out over HTTP.", "grant")
        self._reused = self._counter_of(
            "tokens_reused", "Those of them that others with the same proof have too.", "grant"
        )
        self._revoked = self._counter_of("tokens_revoked", "Tokens that their own clients have ended.", "grant")
        self._refused = self._counter_of(
            "requests_refused", "Requests of authenticated clients that got no token.", "reason"
        )
        self._ready = self._gauge_of("client_ready", "1 where the TokenClient's Ready condition is True.")
        self._conditions = self._gauge_of(
            "client_condition", "1 for each condition of a TokenClient that is not True.", "type", "reason"
        )
        self._orphans = self._gauge_of(
            "orphaned_grants", "Grants whose tokens should have ended, and could not be ended yet."
        )

    def _counter_of(self, name: str, text: str, *labels: str) -> ClientSeries:
        return ClientSeries(self.registry, "counter", f"tokenbroker_{name}", text, labels)

    def _gauge_of(self, name: str, text: str, *labels: str) -> ClientSeries:
        return ClientSeries(self.registry, "gauge", f"tokenbroker_{name}", text, labels)

    def _start_at_zero(self) -> None:
        known: tuple[tuple[Counter | Gauge, Iterable[str]], ...] = (
            (self._problems, Reason),
            (self._proofs, ProofFailure),
            (self._clients, ("true", "false")),
            (self._policies, TRIED),
            (self._leader_changes, ("gained", "lost")),
            (self._kubernetes_failures, TOKEN_REQUEST_FAILURES),
            (self._watch, (Reason.KUBERNETES_UNAVAILABLE, Reason.KUBERNETES_TIMEOUT, "gone", "silent")),
        )
        for metric, values in known:
            for value in values:
                metric.labels(value)

    def issued(self, client: ClientId, grant: str) -> None:
        """Count a token that was handed out."""
        self._issued.inc(client, grant)

    def reused(self, client: ClientId, grant: str) -> None:
        """Count a token that was handed out though somebody else has it, too."""
        self._reused.inc(client, grant)

    def revoked(self, client: ClientId, grant: str) -> None:
        """Count a token that its client has ended."""
        self._revoked.inc(client, grant)

    def orphans(self, client: ClientId, grants: int) -> None:
        """Set of how many grants of a client tokens may live that should not; a client without any has no series."""
        if grants:
            self._orphans.set(grants, client)
        else:
            self._orphans.drop(client)

    def no_orphans(self) -> None:
        """Drop of all clients whose tokens could not be ended: another replica tells."""
        self._orphans.clear()

    def ended(self, why: str) -> None:
        """Count a grant all of whose tokens were ended."""
        self._ended.labels(why).inc()

    def policies_missing(self, names: tuple[str, ...]) -> None:
        """Set which policies are not in force."""
        for policy in TRIED:
            self._policies.labels(policy).set(policy in names)

    def refused(self, client: ClientId, reason: Reason) -> None:
        """Count a request of an authenticated client that got no token."""
        self._refused.inc(client, reason.value)

    def problem(self, reason: Reason) -> None:
        """Count a problem document."""
        self._problems.labels(reason.value).inc()

    def proof_failed(self, failure: ProofFailure) -> None:
        """Count a proof that failed."""
        self._proofs.labels(failure.value).inc()

    def issuer_known(self, issuer: str) -> None:
        """Count the fetches of an issuer's keys from now on, none so far: the first of them is to be seen as one."""
        for outcome in ("success", "failure"):
            self._keys_fetched.labels(issuer, outcome)

    def keys_fetched(self, issuer: str, *, success: bool) -> None:
        """Count a fetch of an issuer's keys."""
        self._keys_fetched.labels(issuer, "success" if success else "failure").inc()

    def audit_failed(self) -> None:
        """Count an audit record that could not be written."""
        self._audit_failures.inc()

    def event_lost(self) -> None:
        """Count a Kubernetes Event that could not be recorded."""
        self._events_lost.inc()

    def arrived(self) -> None:
        """Count one request for a token in."""
        self._answering += 1

    def answered(self, seconds: float) -> None:
        """Count one request for a token out, and observe the time that it took."""
        self._answering -= 1
        self._requests.observe(seconds, exemplar())

    def token_requested(self, seconds: float) -> None:
        """Observe the time that one TokenRequest took."""
        self._token_requests.observe(seconds, exemplar())

    def token_request_failed(self, reason: Reason) -> None:
        """Count a TokenRequest that made no token."""
        self._kubernetes_failures.labels(reason.value).inc()

    def registry_files(self, broken: int) -> None:
        """Set the number of files that serve nobody."""
        self._files_broken.set(broken)

    def registry_size(self, valid: int, invalid: int) -> None:
        """Set the number of registrations."""
        self._clients.labels("true").set(valid)
        self._clients.labels("false").set(invalid)

    def leader_changed(self, *, leading: bool) -> None:
        """Count that this replica began to lead, or ceased to."""
        self._leader_changes.labels("gained" if leading else "lost").inc()

    def watch_restarted(self, reason: str) -> None:
        """Count a watch that broke."""
        self._watch.labels(reason).inc()

    def client_ready(self, client: ClientId, *, ready: bool) -> None:
        """Set whether a client is ready."""
        self._ready.set(1 if ready else 0, client)

    def client_conditions(self, client: ClientId, not_true: Collection[tuple[str, str]]) -> None:
        """Set which conditions of a client are not True: type and reason of each."""
        self._conditions.keep(client, not_true)
        for labels in not_true:
            self._conditions.set(1, client, *labels)

    def nobody_ready(self) -> None:
        """Drop of all clients whether they are ready, and why not: another replica tells."""
        self._ready.clear()
        self._conditions.clear()

    def forget(self, client: ClientId) -> None:
        """Drop all series of a client that went, so that clients who come and go do not fill the memory."""
        for counter in (self._issued, self._reused, self._revoked, self._refused):
            counter.forget(client)
        for gauge in (self._ready, self._conditions):
            gauge.forget(client)
        self.vault.forget(client)

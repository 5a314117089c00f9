"""What operators can count, and what must not pile up."""

from pathlib import Path

from prometheus_client import generate_latest

from broker.clock import SystemClock
from broker.errors import ProofFailure, Reason
from broker.identity.fetch import FileKeys
from broker.identity.key_set import KeySet
from broker.metrics.counted import Metrics
from broker.model.client import ClientId

WEB, APP = ClientId("shop", "web"), ClientId("shop", "app")


def _exposed(metrics: Metrics) -> list[str]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return [line for line in lines if line.startswith("tokenbroker_")]


def _count_all(metrics: Metrics, client: ClientId) -> None:
    metrics.issued(client, "default")
    metrics.reused(client, "default")
    metrics.refused(client, Reason.TTL_OUT_OF_RANGE)
    metrics.client_ready(client, ready=True)
    metrics.vault.vault_written(client, "default", "success")
    metrics.vault.vault_times(client, "default", expiry=2.0, renewal=1.0)
    metrics.client_conditions(client, {("Ready", "InvalidSpec")})


def test_client_that_went_leaves_no_series() -> None:
    """Namespaces that are made for one pipeline run each do not fill the broker's memory, or Prometheus'."""
    metrics = Metrics()
    _count_all(metrics, WEB)
    _count_all(metrics, APP)
    before = _exposed(metrics)
    metrics.forget(WEB)
    after = _exposed(metrics)

    assert len([line for line in before if 'client="web"' in line]) == 8
    assert [line for line in before if 'client="web"' not in line] == after
    assert any('client="app"' in line for line in after)


def test_every_reason_is_at_zero_before_it_happens() -> None:
    """A rate over a series that does not exist yet misses the first failure."""
    exposed = _exposed(Metrics())

    assert {f'tokenbroker_http_problems_total{{code="{reason.value}"}} 0.0' for reason in Reason} <= set(exposed)
    expected = {
        f'tokenbroker_authentication_failures_total{{reason="{failure.value}"}} 0.0' for failure in ProofFailure
    }
    assert expected <= set(exposed)
    broken = ("gone", "silent", "kubernetes_unavailable", "kubernetes_timeout")
    assert {f'tokenbroker_watch_restarts_total{{reason="{reason}"}} 0.0' for reason in broken} <= set(exposed)


def test_in_flight_goes_up_and_down() -> None:
    """Each request is counted in and out, with its time."""
    metrics = Metrics()
    metrics.arrived()
    during = _exposed(metrics)
    metrics.answered(0.02)
    after = _exposed(metrics)

    assert "tokenbroker_requests_in_flight 1.0" in during
    assert "tokenbroker_requests_in_flight 0.0" in after
    assert 'tokenbroker_request_duration_seconds_bucket{le="0.01"} 0.0' in after
    assert 'tokenbroker_request_duration_seconds_bucket{le="0.025"} 1.0' in after


def test_tasks_are_counted_at_each_scrape() -> None:
    """A number that grows and grows shows what memory shows much later."""
    metrics, tasks = Metrics(), [7]
    metrics.scraped.tasks(lambda: tasks[0])
    before = _exposed(metrics)
    tasks[0] = 9

    assert "tokenbroker_tasks 7.0" in before
    assert "tokenbroker_tasks 9.0" in _exposed(metrics)


def test_who_leads_is_asked_at_each_scrape() -> None:
    """A process that slept does not tell what was; comings and goings are counted, from zero."""
    metrics, leading = Metrics(), [False]
    metrics.scraped.leader(lambda: leading[0])
    before = _exposed(metrics)
    leading[0] = True
    metrics.leader_changed(leading=True)
    after = _exposed(metrics)

    assert {"tokenbroker_leader 0.0", 'tokenbroker_leader_changes_total{change="lost"} 0.0'} <= set(before)
    assert {"tokenbroker_leader 1.0", 'tokenbroker_leader_changes_total{change="gained"} 1.0'} <= set(after)
    assert 'tokenbroker_leader_changes_total{change="lost"} 0.0' in after


def test_a_client_shows_the_conditions_that_are_not_true_now() -> None:
    """A reason that no longer holds goes with its series, else an alert on it would fire for ever."""
    metrics = Metrics()
    metrics.client_conditions(WEB, {("Ready", "VaultExpired"), ("VaultSynced", "VaultDenied")})
    metrics.client_conditions(APP, {("Ready", "InvalidSpec")})
    metrics.client_conditions(WEB, {("VaultSynced", "VaultUnavailable")})
    shown = [line for line in _exposed(metrics) if line.startswith("tokenbroker_client_condition{")]

    assert sorted(shown) == [
        'tokenbroker_client_condition{client="app",namespace="shop",reason="InvalidSpec",type="Ready"} 1.0',
        'tokenbroker_client_condition{client="web",namespace="shop",reason="VaultUnavailable",type="VaultSynced"} 1.0',
    ]


def test_who_leads_no_more_tells_of_no_client() -> None:
    """Another replica tells then, and two would contradict each other."""
    metrics = Metrics()
    for client in (WEB, APP):
        metrics.client_ready(client, ready=False)
        metrics.client_conditions(client, {("Ready", "InvalidSpec")})
        metrics.vault.vault_times(client, "default", expiry=2.0, renewal=1.0)
        metrics.orphans(client, 1)
    metrics.nobody_ready()
    metrics.vault.nothing_in_vault()
    metrics.no_orphans()

    assert [line for line in _exposed(metrics) if 'namespace="shop"' in line] == []


def test_a_series_that_was_dropped_begins_anew() -> None:
    """A client that comes back is counted in what is exposed, not in a series that nobody sees."""
    metrics = Metrics()
    metrics.issued(WEB, "default")
    metrics.forget(WEB)
    metrics.issued(WEB, "default")

    line = 'tokenbroker_tokens_issued_total{client="web",grant="default",namespace="shop"} 1.0'
    assert line in _exposed(metrics)


def test_why_the_broker_is_not_ready_is_asked_at_each_scrape() -> None:
    """One series a reason, all at zero where it is ready."""
    metrics, why = Metrics(), [None, Reason.POLICY_MISSING]
    metrics.scraped.unready(lambda: why[-1])
    unready = [line for line in _exposed(metrics) if line.startswith("tokenbroker_unready{")]
    why.pop()
    ready = [line for line in _exposed(metrics) if line.startswith("tokenbroker_unready{")]

    stale, missing, left = [
        f'tokenbroker_unready{{reason="{reason}"}}' for reason in ("registry_stale", "policy_missing", "anchor_missing")
    ]
    assert unready == [f"{stale} 0.0", f"{missing} 1.0", f"{left} 0.0"]
    assert ready == [f"{stale} 0.0", f"{missing} 0.0", f"{left} 0.0"]


def test_fetches_of_keys_are_at_zero_before_the_first() -> None:
    """A series that began with the first success would hide it, and an alert would go by the failures before."""
    metrics = Metrics()
    KeySet("https://issuer.example", FileKeys(Path("never-read")), SystemClock(), metrics)

    fetches = [line for line in _exposed(metrics) if "key_fetches" in line]
    assert fetches == [
        f'tokenbroker_issuer_key_fetches_total{{issuer="https://issuer.example",outcome="{outcome}"}} 0.0'
        for outcome in ("success", "failure")
    ]


def test_no_series_says_when_a_counter_was_made() -> None:
    """They would be as many as the counters and histograms themselves."""
    metrics = Metrics()
    _count_all(metrics, WEB)

    assert [line for line in _exposed(metrics) if "_created" in line] == []


def test_why_vault_does_not_do_what_it_must_is_shown_until_it_does() -> None:
    """One series a reason; a broker that has no Vault, or has not asked yet, alarms nobody."""
    metrics = Metrics()

    def shown() -> dict[str, str]:
        lines = [line for line in _exposed(metrics) if line.startswith("tokenbroker_vault_unreachable{")]
        return dict(line.removeprefix('tokenbroker_vault_unreachable{reason="').split('"} ') for line in lines)

    unasked = shown()
    metrics.vault.vault_asked(Reason.VAULT_UNAVAILABLE)
    away = shown()
    metrics.vault.vault_asked(Reason.VAULT_DENIED)
    denied = shown()
    metrics.vault.vault_asked(None)

    assert unasked == shown() == {"vault_unavailable": "0.0", "vault_denied": "0.0"}
    assert away == {"vault_unavailable": "1.0", "vault_denied": "0.0"}
    assert denied == {"vault_unavailable": "0.0", "vault_denied": "1.0"}

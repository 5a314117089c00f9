"""What operators can count, and what must not pile up."""

from prometheus_client import generate_latest

from broker.errors import ProofFailure, Reason
from broker.metrics import Metrics
from broker.model.client import ClientId

WEB, APP = ClientId("shop", "web"), ClientId("shop", "app")


def _exposed(metrics: Metrics) -> list[str]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return [line for line in lines if line.startswith("tokenbroker_")]


def _count_all(metrics: Metrics, client: ClientId) -> None:
    metrics.issued(client, "default")
    metrics.refused(client, Reason.TTL_OUT_OF_RANGE)
    metrics.client_ready(client, ready=True)
    metrics.vault_written(client, "default", "success")
    metrics.vault_expiry(client, "default", 1.0)


def test_client_that_went_leaves_no_series() -> None:
    """Namespaces that are made for one pipeline run each do not fill the broker's memory, or Prometheus'."""
    metrics = Metrics()
    _count_all(metrics, WEB)
    _count_all(metrics, APP)
    before = _exposed(metrics)
    metrics.forget(WEB)
    after = _exposed(metrics)

    assert len([line for line in before if 'client="web"' in line and "_created" not in line]) == 5
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
    metrics.follow_tasks(lambda: tasks[0])
    before = _exposed(metrics)
    tasks[0] = 9

    assert "tokenbroker_tasks 7.0" in before
    assert "tokenbroker_tasks 9.0" in _exposed(metrics)


def test_who_leads_is_asked_at_each_scrape() -> None:
    """A process that slept does not tell what was; comings and goings are counted, from zero."""
    metrics, leading = Metrics(), [False]
    metrics.follow_leader(lambda: leading[0])
    before = _exposed(metrics)
    leading[0] = True
    metrics.leader_changed(leading=True)
    after = _exposed(metrics)

    assert {"tokenbroker_leader 0.0", 'tokenbroker_leader_changes_total{change="lost"} 0.0'} <= set(before)
    assert {"tokenbroker_leader 1.0", 'tokenbroker_leader_changes_total{change="gained"} 1.0'} <= set(after)
    assert 'tokenbroker_leader_changes_total{change="lost"} 0.0' in after

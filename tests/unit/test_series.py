"""Series of clients are counted, shown and dropped like those of any other metric."""

from prometheus_client import CollectorRegistry, generate_latest

from broker.metrics.series import ClientSeries
from broker.model.client import ClientId

SHOP, CI = ClientId("shop", "web"), ClientId("ci", "runner")


def shown(registry: CollectorRegistry) -> list[str]:
    """Return the lines of a page, those without a number left out."""
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def counter(registry: CollectorRegistry) -> ClientSeries:
    """Return a counter with a label beside those of the client."""
    return ClientSeries(registry, "counter", "things", "Things.", ("grant",))


def test_a_counter_counts_each_series_by_itself() -> None:
    """Its name ends as Prometheus wants it, and its page says what it is."""
    registry = CollectorRegistry()
    things = counter(registry)
    things.inc(SHOP, "a")
    things.inc(SHOP, "a")
    things.inc(SHOP, "b")
    things.inc(CI, "a")

    assert shown(registry) == [
        'things_total{client="web",grant="a",namespace="shop"} 2.0',
        'things_total{client="web",grant="b",namespace="shop"} 1.0',
        'things_total{client="runner",grant="a",namespace="ci"} 1.0',
    ]
    assert "# HELP things_total Things.\n# TYPE things_total counter\n" in generate_latest(registry).decode()


def test_a_gauge_shows_what_was_set_last() -> None:
    """Also where it has no labels but those of the client."""
    registry = CollectorRegistry()
    ready = ClientSeries(registry, "gauge", "ready", "Ready.", ())
    ready.set(1, SHOP)
    ready.set(0, SHOP)

    assert shown(registry) == ['ready{client="web",namespace="shop"} 0.0']


def test_series_are_dropped_one_by_one_or_by_client() -> None:
    """What is left stays as it was."""
    registry = CollectorRegistry()
    things = counter(registry)
    for grant in ("a", "b", "c"):
        things.inc(SHOP, grant)
    things.inc(CI, "a")
    things.drop(SHOP, "a")
    things.drop(SHOP, "never")
    things.drop(ClientId("no", "body"), "a")
    kept = [line.split()[0] for line in shown(registry)]
    things.keep(SHOP, {("c",)})
    after = [line.split()[0] for line in shown(registry)]
    things.forget(SHOP)
    last = shown(registry)
    things.clear()

    b, c, runner = (
        'things_total{client="web",grant="b",namespace="shop"}',
        'things_total{client="web",grant="c",namespace="shop"}',
        'things_total{client="runner",grant="a",namespace="ci"}',
    )
    assert (kept, after, [line.split()[0] for line in last]) == ([b, c, runner], [c, runner], [runner])
    assert shown(registry) == []


def test_a_client_without_series_is_remembered_no_more() -> None:
    """Else clients that come and go would fill the memory."""
    things = counter(CollectorRegistry())
    things.inc(SHOP, "a")
    things.drop(SHOP, "a")

    assert not things._values

"""No alert is left that was only computed: a real Prometheus has fired each because of what happened to a broker."""

from importlib import import_module

from tests.monitoring.rules import ALERTS
from tests.support.broker import ROOT

MODULES = sorted(path.stem for path in (ROOT / "tests" / "chaos").glob("test_alerts*.py"))


def test_every_alert_is_fired_for_real() -> None:
    """By one of the modules in tests/chaos, each of which says what it makes fire; and none that is not there."""
    expected = [import_module(f"tests.chaos.{module}").EXPECTED for module in MODULES]

    assert set().union(*expected) == ALERTS.keys()

"""What a client costs where there are more of them."""

from bench.growth import Grown, growth


def _costs(first_look: float, calls: float, settled: float) -> Grown:
    return Grown(first_look, calls, 2.0, 90.0, settled, 0.3)


def test_growth_compares_what_each_client_costs() -> None:
    """The program's own memory is nobody's; 1 is linear."""
    costs = {100: _costs(3, 14, 90), 1000: _costs(20, 13, 99), 10_000: _costs(300, 26, 288)}

    assert growth(costs) == {"growth_first_look": 1.5, "growth_calls": 2.0, "growth_rss": 2.0}


def test_two_numbers_show_no_growth() -> None:
    """Memory has to be seen at three."""
    assert growth({100: _costs(3, 14, 90), 1000: _costs(20, 13, 99)}) == {}

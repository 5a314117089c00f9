"""What a client costs where there are more of them."""

from bench.growth import Followed, Grown, growth, table


def _costs(first_look: float, calls: float, sync: float, settled: float, followed: Followed | None = None) -> Grown:
    return Grown(first_look, calls, sync, 90.0, settled, 0.3, followed)


def test_growth_compares_what_each_client_costs() -> None:
    """The program's own memory and start are nobody's; 1 is linear."""
    costs = {
        100: _costs(3, 14, 0.5, 90, Followed(8, 50, 80)),
        1000: _costs(20, 13, 1.4, 99, Followed(9, 50, 89)),
        10_000: _costs(300, 26, 20.3, 288, Followed(27, 60, 179)),
    }

    assert growth(costs) == {
        "growth_first_look": 1.5,
        "growth_calls": 2.0,
        "growth_sync": 2.0,
        "growth_rss": 2.0,
        "growth_follower_calls": 1.2,
        "growth_follower_rss": 1.0,
    }


def test_two_numbers_show_no_growth() -> None:
    """Memory has to be seen at three."""
    assert growth({100: _costs(3, 14, 0.5, 90), 1000: _costs(20, 13, 1.4, 99)}) == {}


def test_growth_from_nothing_is_left_out() -> None:
    """So close together, or on so busy a machine, that the second number seemed to cost nothing more."""
    costs = {10: _costs(3, 14, 0.5, 90), 20: _costs(6, 14, 0.4, 90), 30: _costs(9, 14, 0.6, 91)}

    assert growth(costs) == {"growth_first_look": 1.0, "growth_calls": 1.0}


def test_what_is_compared_is_a_figure_of_each_number() -> None:
    """Whoever keeps the figures can work growth out again."""
    assert _costs(3, 14, 0.5, 91, Followed(8, 50, 80)).figures(100) == {
        "clients_100_first_look_seconds": 3,
        "clients_100_calls_each": 14,
        "clients_100_sync_seconds": 0.5,
        "clients_100_rss_mb": 90.0,
        "clients_100_settled_rss_mb": 91,
        "follower_start_calls_100": 8,
        "follower_calls_a_minute_100": 50,
        "follower_rss_mb_100": 80,
    }


def test_without_a_follower_its_figures_are_left_out() -> None:
    """What was measured before it is known all the same."""
    assert not [name for name in _costs(3, 14, 0.5, 91).figures(100) if "follower" in name]


def test_the_table_has_a_row_for_each_number() -> None:
    """In their order, with as many cells as its head has."""
    followed = Followed(8, 50.5, 80)
    head, line, *rows = table({1000: _costs(20, 13, 1.4, 99, followed), 100: _costs(3, 14, 0.5, 91, followed)})

    assert rows == [
        "| 100 | 3 | 14 | 0.5 | 90 | 91 | 8 | 50.5 | 80 |",
        "| 1000 | 20 | 13 | 1.4 | 90 | 99 | 8 | 50.5 | 80 |",
    ]
    assert {text.count("|") for text in (head, line, *rows)} == {10}

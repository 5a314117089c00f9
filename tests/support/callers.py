"""Callers as far as what goes on behind them is concerned."""


class NoCallers:
    """Implements :class:`broker.services.courtesy.Callers`: nobody ever calls. Counts the calls that stood back."""

    def __init__(self) -> None:
        self.stood_back = 0

    async def quiet(self, _seconds: float) -> None:
        """Wait for nobody."""
        self.stood_back += 1

    def lately(self, _seconds: float) -> bool:
        """Tell that nobody came."""
        return False

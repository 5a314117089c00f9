"""An event loop whose time jumps to the next timer: what takes hours takes no longer than what is done in them."""

import asyncio
import selectors


class _Jump(selectors.DefaultSelector):
    """Waits for nothing: there is no file that anything could come from."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time pass for which would be waited. Raises AssertionError where that would be for ever."""
        if timeout is None:
            raise AssertionError("everybody waits, and nothing will ever happen")
        self.passed += max(0.0, timeout)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """Has its own time, in seconds from 0. For code that waits by asyncio alone: no threads, no sockets."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Return its time."""
        return self._jump.passed

    def pass_(self, seconds: float) -> None:
        """Run whatever happens in so many seconds, and what is due at their end."""
        self.run_until_complete(asyncio.sleep(seconds))
        self.run_until_complete(asyncio.sleep(0))

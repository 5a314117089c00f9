"""Runs a command's coroutine."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from broker.cli.errors import errors_shown


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end; errors are shown and become exit codes."""
    with errors_shown():
        asyncio.run(work)

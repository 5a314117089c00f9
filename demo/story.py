"""Steps of a story: each a line that can be pasted, its checked result, and the seconds it took."""

import asyncio
import time

SHOWN_LINES = 4
SHOWN_CHARACTERS = 150


class StepFailed(Exception):  # noqa: N818 - it says what happened
    """A step's result was not what the story says."""


class Story:
    """Runs shell lines, shows them and checks what they print."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self.waited = 0.0
        """How long the last :meth:`until` took, in seconds."""

    def chapter(self, title: str) -> None:
        """Print a heading."""
        print(f"\n\033[1m{title}\033[0m", flush=True)

    async def step(self, line: str, expect: str, meaning: str) -> str:
        """Run a line, and return what it printed. Raises StepFailed unless ``expect`` is in it."""
        print(f"  \033[36m$ {line}\033[0m", flush=True)
        started = time.monotonic()
        output = await self._run(line)
        seconds = time.monotonic() - started
        if expect not in output:
            raise StepFailed(f"{line}\n  printed:\n{output}\n  and not: {expect}")
        for shown in output.strip().splitlines()[:SHOWN_LINES]:
            print(f"    \033[2m{shown[:SHOWN_CHARACTERS]}\033[0m")
        print(f"    \033[32m✓\033[0m {meaning}  \033[2m({seconds:.2f} s)\033[0m", flush=True)
        return output

    async def until(self, line: str, expect: str, meaning: str, *, seconds: float = 20) -> None:
        """Run a line until it prints what is expected. Raises StepFailed when it does not in time."""
        started = time.monotonic()
        deadline = started + seconds
        while expect not in await self._run(line):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        self.waited = time.monotonic() - started
        await self.step(line, expect, meaning)

    async def _run(self, line: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            line,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
        return output.decode()

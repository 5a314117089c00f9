"""``python -m tests.support.soak --minutes N [--seed S]``: exit code 1 where an invariant was violated."""

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.installed import install
from tests.support.lab import Lab
from tests.support.soak.run import Plan, keep_logs, soak

LOGS = Path(".soak")
MINUTES, MOST_MINUTES = 10.0, 24 * 60.0


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def planned(words: Sequence[str]) -> Plan:
    """Read the command line; without a seed, one is drawn."""
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args(words)
    if not 0 < options.minutes <= MOST_MINUTES:
        parser.error(f"--minutes is more than 0 and at most {MOST_MINUTES:.0f}: later the broker deletes old anchors")
    return Plan(options.minutes * 60, options.seed)


async def main(plan: Plan) -> int:
    """Soak servers that are started for it, and tell what came of it; logs are kept where something was violated."""
    async with Lab.start(own=True) as lab:
        await install(lab.cluster)
        report = await soak(lab, plan, say)
        for line in report.lines():
            say(line)
        if report.code:
            keep_logs(lab, LOGS)
            say(f"what the programs said is in {LOGS}; the same faults again: --seed {plan.seed}")
    return report.code


if __name__ == "__main__":
    sys.exit(asyncio.run(main(planned(sys.argv[1:]))))

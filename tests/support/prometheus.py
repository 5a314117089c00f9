"""A real Prometheus and its promtool, built once from the Go module proxy.

``python -m tests.support.prometheus`` builds them and prints where they are.
"""

import sys
from pathlib import Path

from tests.support.go import installed

PROGRAM = "github.com/prometheus/prometheus/cmd/prometheus"
PROMTOOL = "github.com/prometheus/prometheus/cmd/promtool"
VERSION = "v0.316.0"
"""Prometheus 3.16.0 as Go modules number it."""

TAGS = "remove_all_sd,enable_kubernetes_sd"
"""The one service discovery that is needed, which Debian's package is built without."""


def prometheus() -> Path:
    """Return the path of the program; a first build takes two to five minutes. Raises BuildError."""
    return installed(PROGRAM, VERSION, tags=TAGS)


def promtool() -> Path:
    """Return the path of the program that checks rules, built in seconds once Prometheus was. Raises BuildError."""
    return installed(PROMTOOL, VERSION, tags=TAGS)


if __name__ == "__main__":
    sys.stdout.write(f"{prometheus()}\n{promtool()}\n")

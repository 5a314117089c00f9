"""A real Prometheus, built once from the Go module proxy.

``python -m tests.support.prometheus`` builds it and prints where it is.
"""

import sys
from pathlib import Path

from tests.support.go import installed

PROGRAM = "github.com/prometheus/prometheus/cmd/prometheus"
VERSION = "v0.316.0"
"""Prometheus 3.16.0 as Go modules number it."""

TAGS = "remove_all_sd,enable_kubernetes_sd"
"""The one service discovery that is needed, which Debian's package is built without."""


def prometheus() -> Path:
    """Return the path of the program; a first build takes two to five minutes. Raises BuildError."""
    return installed(PROGRAM, VERSION, tags=TAGS)


if __name__ == "__main__":
    sys.stdout.write(f"{prometheus()}\n")

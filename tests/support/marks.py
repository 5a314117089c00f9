"""What some tests need that not every environment has."""

import os

import pytest

from tests.support.cluster import EXTERNAL

own_cluster = pytest.mark.skipif(
    EXTERNAL in os.environ, reason=f"it needs the API server's program, keys or audit log, and {EXTERNAL} is not ours"
)

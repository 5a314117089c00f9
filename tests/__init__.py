"""Tests, and the real servers that they, the demo and the benchmarks use."""

"""Faults, each a named test on real processes: ``make chaos``. The table is in docs/reliability.md."""

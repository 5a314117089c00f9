"""Faults of what the broker depends on, under load, and what must hold afterwards whatever happened."""

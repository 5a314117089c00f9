"""The parts by themselves."""

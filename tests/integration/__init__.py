"""The whole against real servers."""

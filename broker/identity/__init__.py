"""Proofs of who calls."""

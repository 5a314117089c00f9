"""Brokers among models of their neighbours, in virtual time."""

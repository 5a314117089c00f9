"""The locks, on a cluster in which no broker runs."""

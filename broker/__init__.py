"""Short-lived, scoped Kubernetes tokens for registered clients outside the cluster."""

__version__ = "0.1.0"

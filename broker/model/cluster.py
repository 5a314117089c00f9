"""The cluster as clients are told of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """Name, API endpoint (https URL) and CA bundle (PEM), all from the operator's configuration."""

    name: str
    server: str
    ca_pem: str

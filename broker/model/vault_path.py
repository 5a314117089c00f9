"""Where in Vault a grant's token is kept. Pure."""

from dataclasses import dataclass

from broker.model.client import ClientId


@dataclass(frozen=True, slots=True, order=True)
class CopyKey:
    """Names one copy in Vault: a client and its grant."""

    client: ClientId
    grant: str

    def __str__(self) -> str:
        return f"{self.client}/{self.grant}"


@dataclass(frozen=True, slots=True)
class VaultPlace:
    """Where copies live: ``<mount>/<prefix>/<cluster>/<namespace>/<client>/<grant>``.

    The cluster's name is part of it, so that the same TokenClient on many clusters does not meet in one path.
    ``server`` is the cluster's endpoint, by which clusters are told apart that share a name by mistake.
    """

    mount: str
    prefix: str
    cluster: str
    server: str

    @property
    def root(self) -> tuple[str, ...]:
        """The segments, below the mount, that all copies of this cluster share."""
        return (*self.prefix.split("/"), self.cluster)

    def path(self, key: CopyKey) -> tuple[str, ...]:
        """Return the segments of a copy's path below the mount."""
        return (*self.root, key.client.namespace, key.client.name, key.grant)

    def text(self, key: CopyKey) -> str:
        """Return a copy's path as ``vault kv get`` takes it."""
        return "/".join((self.mount, *self.path(key)))

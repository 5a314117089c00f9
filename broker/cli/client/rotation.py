"""Which digests a TokenClient has after a step of replacing its secret. Pure.

The older digest comes first.
"""

from broker.cli.client import proofs
from broker.cli.errors import CommandError
from broker.cli.manifests import Manifest, authentication

PLACE = "/spec/authentication"
"""What the steps here replace in a TokenClient, as a JSON pointer (RFC 6901)."""

_MOST = 2


def with_new_secret(found: Manifest, digest: str, *, drop_oldest: bool) -> list[Manifest]:
    """Return all proofs, with a new secret. Raises CommandError where two are there already."""
    known = digests(found)
    if len(known) >= _MOST and not drop_oldest:
        raise CommandError(
            "the client has two secrets already: end the last replacement with --finish, "
            "or give the oldest secret up with --drop-oldest."
        )
    return _proofs(found, *known[-1:], digest)


def without_old_secret(found: Manifest) -> list[Manifest]:
    """Return all proofs, with only the newest secret. Raises CommandError where there is no other."""
    known = digests(found)
    if len(known) < _MOST:
        raise CommandError("the client has no second secret: there is nothing to finish.")
    return _proofs(found, *known[-1:])


def digests(found: Manifest) -> list[str]:
    """Return the digests of a TokenClient's secrets, the older one first."""
    return proofs.digests(found["spec"].get("authentication"))


def _proofs(found: Manifest, *known: str) -> list[Manifest]:
    """Return all proofs, with these secrets among them; those of other kinds stay as they are."""
    return [*authentication(*known), *proofs.without_secrets(found["spec"].get("authentication"))]

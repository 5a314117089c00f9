"""Which digests a TokenClient has after a step of replacing its secret. Pure.

The older digest comes first.
"""

from broker.cli.errors import CommandError
from broker.cli.manifests import Manifest, authentication

_MOST = 2


def with_new_secret(found: Manifest, digest: str, *, drop_oldest: bool) -> Manifest:
    """Return the change that adds a digest. Raises CommandError where two are there already."""
    known = digests(found)
    if len(known) >= _MOST and not drop_oldest:
        raise CommandError(
            "the client has two secrets already: end the last replacement with --finish, "
            "or give the oldest secret up with --drop-oldest."
        )
    return _change(found, [*known[-1:], digest])


def without_old_secret(found: Manifest) -> Manifest:
    """Return the change that leaves only the newest digest. Raises CommandError where there is no other."""
    known = digests(found)
    if len(known) < _MOST:
        raise CommandError("the client has no second secret: there is nothing to finish.")
    return _change(found, known[-1:])


def digests(found: Manifest) -> list[str]:
    """Return the digests of a TokenClient's secrets, the older one first."""
    proofs = found["spec"].get("authentication") or []
    if len(proofs) > 1:
        raise CommandError("the client has several proofs in spec.authentication: change them with kubectl or in git.")
    return [digest for proof in proofs for digest in proof["clientSecret"]["digests"]]


def _change(found: Manifest, known: list[str]) -> Manifest:
    """Return a merge patch that holds only for the version that was read."""
    version = found["metadata"]["resourceVersion"]
    return {"metadata": {"resourceVersion": version}, "spec": {"authentication": authentication(*known)}}

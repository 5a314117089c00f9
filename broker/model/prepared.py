"""A grant that tokens may be handed out for, and by what. Pure."""

from dataclasses import dataclass

from broker.model.client import Grant, Revocation
from broker.model.token import Anchor


@dataclass(frozen=True, slots=True)
class Prepared:
    """A grant that was tried out, and is what its owner and the operator say that it is.

    ``anchor`` is the leader's word for it. ``account_uid`` pins the ServiceAccount that was looked at.
    """

    grant: Grant
    anchor: Anchor
    account_uid: str

    @property
    def bound(self) -> Anchor | None:
        """What the grant's tokens are bound to; None where nothing ends them."""
        return None if self.grant.revocation is Revocation.NONE else self.anchor

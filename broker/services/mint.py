"""Mint a token of a grant that was prepared, bound to what ends it."""

from collections.abc import Callable
from dataclasses import dataclass

from broker.errors import BrokerError, Reason
from broker.model.client import Client, ClientId, Grant, Revocation
from broker.model.decision import Allowed
from broker.model.prepared import Prepared
from broker.model.token import Anchor, MintedToken, TokenSpec
from broker.ports import Minter
from broker.services.grant_book import GrantBook
from broker.services.token_anchors import TokenAnchors


@dataclass(frozen=True, slots=True)
class Issued:
    """A token and what was decided about it.

    ``id`` is what it is revoked by where it has an end of its own, and the token's ``jti`` where it shares one.
    ``age_seconds`` is how long ago it was asked for, where somebody else has it too; 0 where nobody has.
    """

    id: str
    token: MintedToken
    allowed: Allowed
    namespace: str
    subject: str
    age_seconds: int = 0

    @property
    def reused(self) -> bool:
        """Tell whether somebody else has it, too."""
        return self.age_seconds > 0

    @property
    def granted_seconds(self) -> int:
        """For how long the token is good from now on, where it is handed out again, and as issued where it is new."""
        return max(0, self.token.granted_seconds - self.age_seconds)


class GrantMinter:
    """Mints by the book. ``recheck`` is called when a grant's set-up turns out broken."""

    def __init__(
        self, *, minter: Minter, book: GrantBook, tokens: TokenAnchors, recheck: Callable[[ClientId], None]
    ) -> None:
        self._minter = minter
        self._book = book
        self._tokens = tokens
        self._recheck = recheck

    async def mint(self, client: Client, allowed: Allowed) -> Issued:
        """Return a fresh token.

        Raises BrokerError: why the grant is not prepared, too_many_tokens, and what the minter raises.
        """
        prepared = self.prepared(client, allowed)
        try:
            if allowed.grant.revocation is Revocation.TOKEN:
                return await self._with_its_own_end(client, allowed, prepared)
            spec = _spec(client, allowed, prepared, prepared.bound)
            token = await self._minter.mint(spec)
        except BrokerError as error:
            self._learn(client, prepared, error)
            raise
        return Issued(token.jti, token, allowed, spec.namespace, spec.subject)

    async def mint_below(self, client: Client, allowed: Allowed, anchor: Anchor) -> MintedToken:
        """Return a fresh token that is bound to another anchor than the grant's. Raises what :meth:`mint` does."""
        prepared = self.prepared(client, allowed)
        try:
            return await self._minter.mint(_spec(client, allowed, prepared, anchor))
        except BrokerError as error:
            if _is_worth_a_recheck(error):  # of the anchor that was found to be missing, the book says nothing
                self._recheck(client.id)
            raise

    def abandon(self, client: Client, issued: Issued) -> None:
        """End a token that is not handed out after all, where it has an end of its own."""
        if issued.allowed.grant.revocation is Revocation.TOKEN:
            self._tokens.abandon(client, issued.allowed.grant, issued.id)

    async def _with_its_own_end(self, client: Client, allowed: Allowed, prepared: Prepared) -> Issued:
        token_id, anchor = await self._tokens.make(client, prepared)
        spec = _spec(client, allowed, prepared, anchor)
        try:
            token = await self._minter.mint(spec)
        except BaseException:  # also where the caller is gone: the token may have been minted all the same
            self._tokens.abandon(client, allowed.grant, token_id)
            raise
        return Issued(token_id, token, allowed, spec.namespace, spec.subject)

    def prepared(self, client: Client, allowed: Allowed) -> Prepared:
        """Return by what a grant is minted for now. Raises BrokerError: why it is not prepared."""
        prepared = self._book.get(client, allowed.grant)
        if prepared is None:
            raise self._refusal(client, allowed.grant)
        return prepared

    def _refusal(self, client: Client, grant: Grant) -> BrokerError:
        refusal = self._book.refusal(client, grant)
        if _is_worth_a_recheck(refusal):
            self._recheck(client.id)  # what else stands in the way is looked at again by itself
        return refusal

    def _learn(self, client: Client, prepared: Prepared, error: BrokerError) -> None:
        if error.reason is Reason.ANCHOR_MISSING:
            self._book.drop(client, prepared)
        if _is_worth_a_recheck(error):
            self._recheck(client.id)


def _spec(client: Client, allowed: Allowed, prepared: Prepared, anchor: Anchor | None) -> TokenSpec:
    return TokenSpec(
        client.id.namespace,
        allowed.grant.service_account,
        allowed.audience,
        allowed.ttl_seconds,
        anchor,
        prepared.account_uid,
    )


def _is_worth_a_recheck(error: BrokerError) -> bool:
    """Tell whether an error says something about the grant's set-up that may be mended: its status should follow."""
    return error.reason in {
        Reason.SERVICE_ACCOUNT_MISSING,
        Reason.BROKER_NOT_AUTHORIZED,
        Reason.ANCHOR_MISSING,
        Reason.KUBERNETES_REJECTED,
    }

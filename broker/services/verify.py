"""Hold what a grant's account may do against what its owner expects, and against what revocation can end."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Protocol

from broker.errors import BrokerError, Reason
from broker.model.access import Action, Rules, parse_action
from broker.model.api_resources import Catalogue
from broker.model.client import Client, ClientId, Grant
from broker.model.decision import Rules as OperatorRules
from broker.model.expectations import Finding, Outcome, settle, verify
from broker.model.sensitive import Sensitive
from broker.model.status import AccessFacts
from broker.model.strength import strength_of, strong_questions, strong_reasons
from broker.model.token import MintedToken
from broker.ports import Clock

CATALOGUE_SECONDS = 600.0
"""How long the list of what the cluster serves is used."""

STRENGTH_SECONDS = 3600.0
"""Where an authorizer cannot list its rules, an account's strength takes many questions: they are asked this seldom."""

SHOWN = 3
"""How many reasons or expectations a message names."""


class AccessReviews(Protocol):
    """Asks the API server as an account."""

    async def rules(self, token: Sensitive, namespace: str) -> Rules:
        """Return the account's rules in a namespace. Raises BrokerError: kubernetes_unavailable, kubernetes_timeout."""

    async def allowed(self, token: Sensitive, action: Action, namespace: str) -> bool:
        """Tell whether the account may do something. Raises BrokerError like :meth:`rules`."""

    async def catalogue(self) -> Catalogue:
        """Return what the cluster serves. Raises BrokerError like :meth:`rules`."""


class Verifier:
    """Looks at accounts; implements :class:`broker.services.prepare.AccessCheck`."""

    def __init__(self, reviews: AccessReviews, rules: OperatorRules, clock: Clock) -> None:
        self._reviews = reviews
        self._rules = rules
        self._clock = clock
        self._catalogue: tuple[float, Catalogue] | None = None
        self._strong: defaultdict[ClientId, dict[str, tuple[float, str, tuple[str, ...]]]] = defaultdict(dict)

    async def check(self, client: Client, grant: Grant, token: MintedToken) -> AccessFacts:
        """Return what was found; see :meth:`broker.services.prepare.AccessCheck.check`."""
        rules = await self._reviews.rules(token.value, client.id.namespace)
        strong = await self._reasons(client, grant, token, rules)
        if strong and not self._rules.limits(client.id.namespace).strong_accounts:
            raise _too_strong(grant, strong)
        findings, doubts = await self._findings(client, grant, token, rules)
        broken = [found for found in findings if found.expected == "deny" and found.outcome is Outcome.FAILED]
        if broken:
            raise _not_as_declared(broken)
        open_ones = [found for found in findings if found.outcome is not Outcome.HELD]
        certain = not doubts and all(found.outcome is not Outcome.UNKNOWN for found in open_ones)
        return AccessFacts(bool(strong), certain, (*doubts, *(f"{found}." for found in open_ones))[:SHOWN])

    def forget(self, client_id: ClientId) -> None:
        """Forget a client that went."""
        self._strong.pop(client_id, None)

    async def _reasons(self, client: Client, grant: Grant, token: MintedToken, rules: Rules) -> tuple[str, ...]:
        """Return why the account is strong: by its rules, and by the authorizer's word where there may be more."""
        reasons = tuple(map(str, strong_reasons(rules)))
        if reasons or not rules.doubt:
            return reasons
        asked, now = self._strong[client.id], self._clock.monotonic()
        at, uid, known = asked.get(grant.name, (-STRENGTH_SECONDS, "", ()))
        if uid == token.account_uid and now - at < STRENGTH_SECONDS:
            return known
        answers = await self._ask(token, strong_questions(), client.id.namespace)
        known = tuple(str(strength_of(action)) for action, allowed in answers.items() if allowed)
        asked[grant.name] = (now, token.account_uid, known)
        return known

    async def _findings(
        self, client: Client, grant: Grant, token: MintedToken, rules: Rules
    ) -> tuple[list[Finding], tuple[str, ...]]:
        """Return what became of the expectations, and those that mean nothing in this cluster."""
        if not grant.expect.allow and not grant.expect.deny:
            return [], ()
        catalogue = await self._served()
        allow, strange = _resolved(grant.expect.allow, catalogue)
        deny, stranger = _resolved(grant.expect.deny, catalogue)
        findings = []
        for found in verify(allow, deny, rules):
            answers = await self._ask(token, found.questions, client.id.namespace)
            findings.append(settle(found, answers))
        return findings, (*strange, *stranger)

    async def _ask(self, token: MintedToken, actions: Iterable[Action], namespace: str) -> Mapping[Action, bool]:
        return {action: await self._reviews.allowed(token.value, action, namespace) for action in actions}

    async def _served(self) -> Catalogue:
        now = self._clock.monotonic()
        if self._catalogue is None or now - self._catalogue[0] > CATALOGUE_SECONDS:
            self._catalogue = (now, await self._reviews.catalogue())
        return self._catalogue[1]


def _resolved(texts: Iterable[str], catalogue: Catalogue) -> tuple[list[Action], tuple[str, ...]]:
    actions, problems = [], []
    for text in texts:
        try:
            actions.append(parse_action(text).resolved(catalogue))
        except ValueError as error:
            problems.append(str(error))
    return actions, tuple(problems)


def _too_strong(grant: Grant, reasons: tuple[str, ...]) -> BrokerError:
    more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return BrokerError(
        Reason.ACCOUNT_TOO_STRONG,
        "The grant's account could make credentials of its own, which no revocation ends; the broker's operator does "
        "not allow that in this namespace.",
        operator_detail=(
            f"The account {grant.service_account} is strong: {'; '.join(reasons[:SHOWN])}{more}. Take these rights "
            "from it, or have the broker's operator allow strong accounts in this namespace (limits)."
        ),
    )


def _not_as_declared(broken: list[Finding]) -> BrokerError:
    return BrokerError(
        Reason.ACCESS_NOT_AS_DECLARED,
        "The grant's account may do what its owner has declared that it must not; nothing is issued until that ends.",
        operator_detail="; ".join(map(str, broken[:SHOWN])) + ".",
    )

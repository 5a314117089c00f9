"""Hold what a grant's account may do against what its owner expects, and against what revocation can end."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Protocol

from broker.errors import BrokerError, Reason
from broker.model.access import Action, Rules, parse_action
from broker.model.api_resources import Catalogue
from broker.model.client import Client, ClientId, Grant
from broker.model.decision import Rules as OperatorRules
from broker.model.expectations import Finding, Outcome, settle, verify
from broker.model.limits import NamespaceLimits
from broker.model.schedule import spread
from broker.model.sensitive import Sensitive
from broker.model.status import AccessFacts
from broker.model.strength import strength_of, strong_questions, strong_reasons
from broker.model.token import MintedToken
from broker.ports import Clock
from broker.services.looks import Known, Look, Namespace
from broker.services.rush import Rush
from broker.services.storms.token_bucket import TokenBucket

CATALOGUE_SECONDS = 600.0
"""How long the list of what the cluster serves is used."""

STRENGTH_SECONDS = 3600.0
"""Where an authorizer cannot list its rules, an account's strength takes many questions: they are asked this seldom."""

LOOK_SECONDS = 20.0
"""How long the questions about one account may take together."""

LOOK_QUESTIONS = 400
"""How many questions about one account its expectations may take together."""

LATEST_SECONDS = 600.0
"""Where routine stands back, an account is looked at again after so long all the same."""

STAND_BACK_SECONDS = 30.0
"""For how long a look stands back at a time, and up to twice that, spread by the client's name."""

QPS = 20.0
BURST = 200
"""How many questions a second are asked in looking again at a namespace's accounts, on the average, and at once."""

_TOO_MANY = f"the expectations of its grant would take more than {LOOK_QUESTIONS} questions to the API server"

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

    def __init__(self, reviews: AccessReviews, rules: OperatorRules, clock: Clock, rush: Rush) -> None:
        self._reviews = reviews
        self._rules = rules
        self._clock = clock
        self._rush = rush
        self._catalogue: tuple[float, Catalogue] | None = None
        self._namespaces: defaultdict[str, Namespace] = defaultdict(
            lambda: Namespace(TokenBucket(clock, qps=QPS, burst=BURST))
        )

    def wait(self, client: Client, grants: Collection[Grant]) -> float:
        """Return for how many seconds a look has to wait; see :meth:`broker.services.prepare.AccessCheck.wait`."""
        namespace, limits = self._namespaces[client.id.namespace], self._rules.limits(client.id.namespace)
        known = namespace.clients[client.id.name]
        before = known.of(client, limits, grants)
        if len(before) < len(grants):
            known.turn = None
            return 0.0
        now, turn = self._clock.monotonic(), known.turn
        oldest = min(look.at for look in before)
        left = oldest + LATEST_SECONDS - now
        if left > 0 and oldest > known.wanted_at and self._rush.on:
            return min(left, STAND_BACK_SECONDS * (1 + spread(str(client.id))))
        if turn is None:
            turn = now + namespace.bucket.reserve(sum(look.questions for look in before))
        known.turn = turn if turn > now else None
        return max(0.0, turn - now)

    def routine(self, client: Client, grant: Grant) -> bool:
        """Tell whether a look is one; see :meth:`broker.services.prepare.AccessCheck.routine`."""
        known = self._known(client.id)
        looks = known.of(client, self._rules.limits(client.id.namespace), [grant]) if known is not None else []
        return known is not None and any(look.at > known.wanted_at for look in looks)

    def want(self, client_id: ClientId) -> None:
        """Let the next look at each grant wait for nothing but its turn; see AccessCheck."""
        known = self._known(client_id)
        if known is not None:
            known.wanted_at = self._clock.monotonic()

    async def check(self, client: Client, grant: Grant, token: MintedToken) -> AccessFacts:
        """Return what was found; see :meth:`broker.services.prepare.AccessCheck.check`."""
        known = self._namespaces[client.id.namespace].clients[client.id.name]
        limits = self._rules.limits(client.id.namespace)
        known.looks.pop(grant.name, None)
        asking, findings = _Asking(self._reviews, token, client.id.namespace), list[Finding]()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                rules = await asking.rules()
                strong = tuple(map(str, strong_reasons(rules)))
                _require_weak(grant, strong, limits)
                unsettled, doubts = await self._by_rules(grant, asking, rules, findings)
                strong = strong or await self._asked_reasons(known, grant, asking, rules)
                _require_weak(grant, strong, limits)
                await _ask_about(unsettled, asking, findings)
        except TimeoutError:
            _require_declared(findings)  # what was found out before counts
            raise _too_slow() from None
        _require_declared(findings)
        known.looks[grant.name] = Look(client, limits, asking.questions, self._clock.monotonic())
        return _facts(findings, doubts, strong=bool(strong))

    def forget(self, client_id: ClientId) -> None:
        """Forget a client that went, and its namespace with the last one."""
        namespace = self._namespaces.get(client_id.namespace)
        if namespace is None:
            return
        namespace.clients.pop(client_id.name, None)
        if not namespace.clients:
            del self._namespaces[client_id.namespace]

    def _known(self, client_id: ClientId) -> Known | None:
        """Return what is remembered of a client; of one that nobody knows, nothing begins to be."""
        namespace = self._namespaces.get(client_id.namespace)
        return namespace.clients.get(client_id.name) if namespace is not None else None

    async def _asked_reasons(self, known: Known, grant: Grant, asking: "_Asking", rules: Rules) -> tuple[str, ...]:
        """Return why the account is strong by the authorizer's word, where it may have more than its rules."""
        if not rules.doubt:
            return ()
        now, account_uid = self._clock.monotonic(), asking.token.account_uid
        at, uid, before = known.strong.get(grant.name, (-STRENGTH_SECONDS, "", ()))
        if uid == account_uid and now - at < STRENGTH_SECONDS:
            return before
        questions = strong_questions(asking.namespace)
        await asking.ask(questions)
        found = tuple(str(strength_of(action)) for action in questions if asking.answers[action])
        known.strong[grant.name] = (now, account_uid, found)
        return found

    async def _by_rules(
        self, grant: Grant, asking: "_Asking", rules: Rules, findings: list[Finding]
    ) -> tuple[list[Finding], tuple[str, ...]]:
        """Add to ``findings`` what the rules decide.

        Returns what has to be asked about, and the expectations that mean nothing in this cluster. Raises
        BrokerError(access_not_as_declared) at once: whoever can make questions slow must not keep it from being found.
        """
        if not grant.expect.allow and not grant.expect.deny:
            return [], ()
        catalogue = await self._served()
        allow, strange = _resolved(grant.expect.allow, catalogue)
        deny, stranger = _resolved(grant.expect.deny, catalogue)
        unsettled = list[Finding]()
        for found in verify(allow, deny, rules, asking.namespace):
            (unsettled if found.questions else findings).append(found)
        _require_declared(findings)
        return unsettled, (*strange, *stranger)

    async def _served(self) -> Catalogue:
        now = self._clock.monotonic()
        if self._catalogue is None or now - self._catalogue[0] > CATALOGUE_SECONDS:
            self._catalogue = (now, await self._reviews.catalogue())
        return self._catalogue[1]


class _Asking:
    """Asks about one account, each question once; ``questions`` counts them."""

    def __init__(self, reviews: AccessReviews, token: MintedToken, namespace: str) -> None:
        self._reviews = reviews
        self.token = token
        self.namespace = namespace
        self.questions = 0
        self.answers: dict[Action, bool] = {}

    async def rules(self) -> Rules:
        """Return the account's rules."""
        self.questions += 1
        return await self._reviews.rules(self.token.value, self.namespace)

    def open(self, actions: Iterable[Action]) -> list[Action]:
        """Return what was not asked about yet."""
        return [action for action in actions if action not in self.answers]

    async def ask(self, actions: Iterable[Action]) -> None:
        """Ask about what was not asked about yet."""
        for action in self.open(actions):
            self.questions += 1
            self.answers[action] = await self._reviews.allowed(self.token.value, action, self.namespace)


async def _ask_about(unsettled: Iterable[Finding], asking: _Asking, findings: list[Finding]) -> None:
    """Settle findings by the authorizer's word, as far as there may be questions."""
    left = LOOK_QUESTIONS
    for found in unsettled:
        new = len(asking.open(found.questions))
        if new > left:
            findings.append(replace(found, questions=(), why=_TOO_MANY))
        else:
            left -= new
            await asking.ask(found.questions)
            findings.append(settle(found, asking.answers))


def _require_declared(findings: Iterable[Finding]) -> None:
    """Raise BrokerError(access_not_as_declared) where something denied is allowed."""
    broken = [found for found in findings if found.expected == "deny" and found.outcome is Outcome.FAILED]
    if broken:
        raise _not_as_declared(broken)


def _require_weak(grant: Grant, reasons: tuple[str, ...], limits: NamespaceLimits) -> None:
    """Raise BrokerError(account_too_strong) where strong accounts are not allowed."""
    if reasons and not limits.strong_accounts:
        raise _too_strong(grant, reasons)


def _facts(findings: list[Finding], doubts: tuple[str, ...], *, strong: bool) -> AccessFacts:
    """Return what the findings come to, where nothing denied is allowed."""
    open_ones = [found for found in findings if found.outcome is not Outcome.HELD]
    certain = not doubts and all(found.outcome is not Outcome.UNKNOWN for found in open_ones)
    return AccessFacts(strong, certain, (*doubts, *(f"{found}." for found in open_ones))[:SHOWN])


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


def _too_slow() -> BrokerError:
    return BrokerError(
        Reason.KUBERNETES_TIMEOUT,
        "The Kubernetes API did not answer in time.",
        operator_detail=(
            f"The API server did not answer all questions about a granted account within {LOOK_SECONDS:g} s."
        ),
        retry_after=2,
    )


def _not_as_declared(broken: list[Finding]) -> BrokerError:
    return BrokerError(
        Reason.ACCESS_NOT_AS_DECLARED,
        "The grant's account may do what its owner has declared that it must not; nothing is issued until that ends.",
        operator_detail="; ".join(map(str, broken[:SHOWN])) + ".",
    )

"""Joins what is found out to what it means, for each of the doctor's questions."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from broker.cli.cluster import Cluster
from broker.cli.doctor import canary, client, client_facts, history, requests, token, token_facts, vault_copy
from broker.cli.doctor.actions import Wish
from broker.cli.doctor.client import ClientFacts
from broker.cli.doctor.findings import Finding, problem, unknown
from broker.cli.doctor.meanings import Meaning
from broker.cli.doctor.rights import judge, may, may_itself
from broker.cli.doctor.vault_facts import Vault
from broker.cli.manifests import BrokerAccount
from broker.cli.token.jwt import decode
from broker.model.client import ClientId
from broker.model.sensitive import Sensitive


@dataclass(frozen=True, slots=True)
class Doctor:
    """What all questions have in common; ``can`` is what an account should be able to do, if that is asked."""

    cluster: Cluster
    broker: BrokerAccount
    meanings: dict[str, Meaning]
    can: Wish | None
    vault: Vault | None
    here: datetime

    async def token(self, presented: Sensitive, log: Iterable[str] | None) -> AsyncIterator[Finding]:
        """Tell why a token is refused; ``log`` is the broker's audit log. Raises CommandError for what is no JWT."""
        claims = token.claims_of(decode(presented.reveal()))
        if claims is None:
            text = "this JWT is no token of a ServiceAccount that a TokenRequest made, and the broker makes no others"
            yield problem("token.kind", text, "tokenbroker token inspect FILE   # shows what it says")
            return
        told = history.trace(log, claims.jti) if log is not None else None
        facts = await token_facts.gather(self.cluster, presented, claims, self.here)
        if told is not None:
            facts = replace(facts, events=(*facts.events, told.end)) if told.end else facts
            for finding in history.diagnose(told, claims.new_token):
                yield finding
        for finding in token.diagnose(facts):
            yield finding
        if self.can is not None and not token.foreign(facts.issuer, claims):
            good = presented if facts.accepted else None
            yield await self._may(self.can, claims.namespace, claims.account, good)
        if told is not None and told.client is not None:
            async for finding in self.client(told.client, told.grant):
                yield finding

    async def client(self, asked: ClientId, grant: str) -> AsyncIterator[Finding]:
        """Tell why a client gets no tokens."""
        facts = await client_facts.gather(self.cluster, asked, grant, self.broker)
        for finding in client.diagnose(facts, self.meanings):
            yield finding
        if facts.resource is not None:
            yield await canary.check(self.cluster, self.broker)
        async for finding in self._copies(facts):
            yield finding
        if self.can is not None:
            for account in facts.accounts:
                yield await self._may(self.can, asked.namespace, account, None)

    async def _copies(self, facts: ClientFacts) -> AsyncIterator[Finding]:
        """Look at the copies in Vault, where it is known which Vault."""
        resource = facts.resource or {"spec": {"grants": []}}
        for name in [it["name"] for it in client.grants(resource, facts.grant) if "vault" in it]:
            if self.vault is None:
                yield unknown("grant.vault", "Vault was not looked at: set VAULT_ADDR, VAULT_TOKEN and VAULT_CACERT")
            else:
                yield await vault_copy.check(self.vault, resource, name, self.here)

    async def request(self, asked: requests.Request) -> AsyncIterator[Finding]:
        """Tell what became of a request, and how its client is now."""
        for finding in requests.diagnose(asked, self.meanings):
            yield finding
        if asked.client is not None:
            async for finding in self.client(asked.client, asked.grant):
                yield finding

    async def _may(self, wish: Wish, namespace: str, account: str, good: Sensitive | None) -> Finding:
        """Ask what an account may do, by the user's rights, or else by those of a good token of its own."""
        verdict = await may(self.cluster, namespace, account, wish)
        if verdict.refusal and good is not None:
            verdict = await may_itself(self.cluster, good, wish)
        return judge("access.can", namespace, account, wish, verdict)

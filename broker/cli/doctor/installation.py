"""Is the broker installed as this release wants it? Joins what is found out to what it means."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from broker.cli import release
from broker.cli.check import rbac_facts
from broker.cli.check.minting import needs, shipped_rbac
from broker.cli.cluster import Cluster
from broker.cli.doctor import canary, certificates, install_facts, own_rights, policies, schema, vault, vault_facts, web
from broker.cli.doctor.certificates import Server
from broker.cli.doctor.clocks import clocks, server_time
from broker.cli.doctor.findings import Finding, unknown
from broker.cli.doctor.settings import Settings
from broker.cli.doctor.vault_facts import Vault
from broker.cli.errors import CommandError
from broker.cli.manifests import BrokerAccount
from broker.cli.resources import Kind

_AUDIT_RULES = """\
- level: Metadata   # in the API server's audit policy, before any rule of level Request or RequestResponse
  resources:
  - {group: "", resources: [serviceaccounts/token]}
  - {group: authentication.k8s.io, resources: [tokenreviews]}"""
_RENEW = (
    "kubectl create secret tls tokenbroker-tls -n {} --cert=NEW.crt --key=NEW.key --dry-run=client -o yaml "
    "| kubectl apply -f -"
)


@dataclass(frozen=True, slots=True)
class Installation:
    """What is asked: of which cluster, broker and Vault, and where the broker is reached."""

    cluster: Cluster
    broker: BrokerAccount
    vault: Vault | None
    url: str
    tls: ssl.SSLContext
    here: datetime

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield how everything is, one part after the other."""
        settings = await install_facts.configuration(self.cluster, self.broker)
        yield schema.diagnose(
            release.manifest("CustomResourceDefinition", schema.NAME), *await install_facts.crd(self.cluster)
        )
        policy_findings = canary.look(self.cluster, self.broker, policies.POLICIES)
        for part in (policy_findings, self._rights(), self._vault(settings), self._servers(settings)):
            async for finding in part:
                yield finding
        text = "whether the cluster's audit log keeps tokens cannot be seen from outside: it must not log these bodies"
        yield unknown("audit.policy", text, _AUDIT_RULES)

    async def _rights(self) -> AsyncIterator[Finding]:
        try:
            wanted = needs(await self.cluster.list(Kind.TOKEN_CLIENT, None))
            found = await rbac_facts.read(self.cluster, None)
        except CommandError as error:
            yield unknown("rights.missing", f"what the broker's account may do cannot be read: {error}")
            return
        shipped = shipped_rbac(release.manifests(), self.broker)
        for finding in own_rights.diagnose(wanted, found, shipped, self.broker):
            yield finding

    async def _vault(self, settings: Settings) -> AsyncIterator[Finding]:
        if self.vault is None:
            yield unknown("vault.reachable", "Vault was not looked at: set VAULT_ADDR, VAULT_TOKEN and VAULT_CACERT")
            return
        facts = await vault_facts.gather(self.vault, settings)
        for finding in vault.diagnose(facts, settings, self.broker, release.text(release.VAULT_POLICY)):
            yield finding
        for finding in clocks(self.here, {"Vault": server_time(facts.health.date)}):
            yield finding

    async def _servers(self, settings: Settings) -> AsyncIterator[Finding]:
        for finding in clocks(self.here, {"API server": server_time((await self.cluster.ask("GET", "/version")).date)}):
            yield finding
        async for finding in self._authority(settings):
            yield finding
        url = (self.url or settings.public_url).rstrip("/")
        if not url:
            yield unknown("certificate.broker", "where the broker is reached is not known: name it with --url")
            return
        asked = Server("certificate.broker", "broker", url, _RENEW.format(self.broker.namespace))
        yield await certificates.server(asked, self.tls, self.here)
        answer = await web.get(f"{url}/openapi.yaml", self.tls)
        for finding in clocks(self.here, {"broker": server_time(answer.date)}):
            yield finding

    async def _authority(self, settings: Settings) -> AsyncIterator[Finding]:
        """Judge the CA that clients are given, by itself and by what the API server shows."""
        if not settings.ca:
            yield unknown("certificate.cluster-ca", "the broker's configuration (its ConfigMap) cannot be read")
            return
        yield certificates.authority(settings.ca, self.here)
        try:
            tls = ssl.create_default_context(cadata=settings.ca)
        except ssl.SSLError:
            return  # which was told
        mend = "put the API server's current CA into cluster.ca_file, or mend cluster.server"
        asked = Server("certificate.api-server", "API server", settings.server, mend)
        yield await certificates.server(asked, tls, self.here)

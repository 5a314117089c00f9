"""Is Vault set up as deploy/vault does it? Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

from broker.cli.doctor.findings import Finding, ok, problem, unknown
from broker.cli.doctor.settings import Settings
from broker.cli.doctor.web import Reply
from broker.cli.manifests import BrokerAccount

SET_UP = "deploy/vault/setup.sh   # running it again is safe"
_UNINITIALISED, _SEALED = 501, 503
_NOT_ASKED = Reply()


@dataclass(frozen=True, slots=True)
class VaultFacts:
    """The answers to GET of ``sys/health``; and where it serves, of ``sys/auth``, role, policy, and ``sys/mounts``."""

    address: str
    health: Reply
    logins: Reply = _NOT_ASKED
    role: Reply = _NOT_ASKED
    policy: Reply = _NOT_ASKED
    mounts: Reply = _NOT_ASKED


def diagnose(facts: VaultFacts, settings: Settings, broker: BrokerAccount, policy: str) -> Iterator[Finding]:
    """Yield how Vault is; where it cannot serve, nothing else is asked."""
    reachable = health(facts.address, facts.health)
    yield reachable
    if reachable.mend:
        return
    yield _login(facts.logins, settings)
    yield _role(facts.role, settings, broker)
    yield _policy(facts.policy, settings, policy)
    yield _mount(facts.mounts, settings)


def health(address: str, answer: Reply) -> Finding:
    """Return whether Vault can serve."""
    identity = "vault.reachable"
    if answer.failure:
        mend = "set VAULT_ADDR to where Vault is, and VAULT_CACERT to the CA of its certificate"
        return problem(identity, f"Vault at {address} cannot be reached: {answer.failure}", mend)
    if answer.status == _UNINITIALISED:
        return problem(identity, f"Vault at {address} is not initialised", "vault operator init")
    if answer.status == _SEALED:
        return problem(identity, f"Vault at {address} is sealed", "vault operator unseal")
    if answer.status != HTTPStatus.OK:
        text = f"{address} answers {answer.status} and not how it is: it is no Vault, or one that cannot serve"
        return problem(identity, text, "set VAULT_ADDR to a Vault that serves")
    return ok(identity, f"Vault at {address} is initialised and unsealed")


def unreadable(identity: str, what: str, answer: Reply) -> Finding:
    """Return that Vault did not say how something is."""
    why = answer.failure or f"Vault answered {answer.status}"
    return unknown(identity, f"{what} cannot be read ({why}): set VAULT_TOKEN to one that may")


def _login(answer: Reply, settings: Settings) -> Finding:
    identity, mount = "vault.login", f"auth/{settings.auth_mount}"
    if answer.status != HTTPStatus.OK:
        return unreadable(identity, "the login methods", answer)
    known = answer.data().get(f"{settings.auth_mount}/")
    if not isinstance(known, dict) or known.get("type") != "kubernetes":
        return problem(identity, f"there is no kubernetes login at {mount}", SET_UP)
    return ok(identity, f"the kubernetes login is at {mount}")


def _role(answer: Reply, settings: Settings, broker: BrokerAccount) -> Finding:
    identity, name = "vault.role", f"auth/{settings.auth_mount}/role/{settings.auth_role}"
    if answer.status == HTTPStatus.NOT_FOUND:
        return problem(identity, f"there is no role {name}", SET_UP)
    if answer.status != HTTPStatus.OK:
        return unreadable(identity, f"the role {name}", answer)
    role = answer.data()
    wanted = {
        "bound_service_account_names": [broker.name],
        "bound_service_account_namespaces": [broker.namespace],
        "audience": settings.auth_audience,
        "token_policies": [_POLICY],
        "token_no_default_policy": True,
    }
    wrong = [f"{key} is {role.get(key)} and not {value}" for key, value in wanted.items() if role.get(key) != value]
    if wrong:
        return problem(identity, f"the role {name}: {'; '.join(wrong)}", SET_UP)
    return ok(identity, f"the role {name} lets in the broker's account alone, with a token for {role['audience']}")


_POLICY = "tokenbroker"


def _policy(answer: Reply, settings: Settings, shipped: str) -> Finding:
    identity = "vault.policy"
    if answer.status == HTTPStatus.NOT_FOUND:
        return problem(identity, f"there is no policy {_POLICY}", SET_UP)
    if answer.status != HTTPStatus.OK:
        return unreadable(identity, f"the policy {_POLICY}", answer)
    if _essence(str(answer.data().get("policy", ""))) != _essence(_placed(shipped, settings)):
        text = f"the policy {_POLICY} is not that of this release: the broker may do more, or less"
        return problem(identity, text, f"vault policy write {_POLICY} deploy/vault/policy.hcl")
    return ok(identity, f"the policy {_POLICY} is that of this release: it writes tokens, and reads none")


def _placed(shipped: str, settings: Settings) -> str:
    return re.sub(r'"secret/(data|metadata)/tokenbroker/', rf'"{settings.mount}/\1/{settings.prefix}/', shipped)


def _essence(policy: str) -> list[str]:
    """Return a policy's words: without comments, and however it is laid out."""
    return re.sub(r"#.*", "", policy).split()


def _mount(answer: Reply, settings: Settings) -> Finding:
    identity = "vault.mount"
    if answer.status != HTTPStatus.OK:
        return unreadable(identity, "the secrets engines", answer)
    engine = answer.data().get(f"{settings.mount}/")
    enable = f"vault secrets enable -path={settings.mount} -version=2 kv"
    if not isinstance(engine, dict):
        return problem(identity, f"there is no secrets engine at {settings.mount}/", enable)
    if (engine.get("type"), (engine.get("options") or {}).get("version")) != ("kv", "2"):
        text = f"the secrets engine at {settings.mount}/ is no KV of version 2"
        return problem(
            identity, text, f"vault kv enable-versioning {settings.mount}   # or set the broker's vault.mount"
        )
    return ok(identity, f"a KV engine of version 2 is at {settings.mount}/")

"""What a tool has to be told to use a client, from a template of its own. Pure, but for reading the template.

In a template, ``<<name>>`` stands for a value. A line with a value that is empty is left out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from urllib.parse import quote, urlsplit

from broker.cli.client.proofs import digests
from broker.cli.errors import CommandError, usage
from broker.cli.manifests import Manifest


class Tool(StrEnum):
    """What ``client config --for`` takes."""

    PROMETHEUS = "prometheus"
    KUBECTL = "kubectl"
    GITHUB = "github"
    GITLAB = "gitlab"
    JENKINS = "jenkins"
    VAULT_AGENT = "vault-agent"
    EXTERNAL_SECRETS = "external-secrets"
    ARGOCD = "argocd"


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is, as URLs without a slash at the end; ``vault`` is empty where nobody named it."""

    broker: str
    api_server: str
    vault: str


_TEMPLATES = {
    Tool.PROMETHEUS: "prometheus.yaml",
    Tool.KUBECTL: "kubectl.sh",
    Tool.GITHUB: "github.yaml",
    Tool.GITLAB: "gitlab.yaml",
    Tool.JENKINS: "jenkins.groovy",
    Tool.VAULT_AGENT: "vault-agent.hcl",
    Tool.EXTERNAL_SECRETS: "external-secrets.yaml",
    Tool.ARGOCD: "argocd.yaml",
}
_BY_SECRET = frozenset({Tool.PROMETHEUS, Tool.KUBECTL, Tool.JENKINS})
_ISSUERS = {Tool.GITHUB: "https://token.actions.githubusercontent.com", Tool.GITLAB: "https://gitlab.com"}
"""Who vouches for jobs; servers of one's own have issuers of their own."""

_PLACEHOLDER = re.compile(r"<<([a-z_]+)>>")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:/%+-]*|", re.ASCII)
"""What means the same in YAML, JSON, HCL, Groovy and a shell, without quotes and within."""


def configuration(tool: Tool, found: Manifest, grant: str | None, places: Places) -> str:
    """Return the tool's configuration for a TokenClient. Raises CommandError for a client that it cannot use."""
    metadata = found["metadata"]
    chosen = _grant(found, grant)
    values = {
        "client": f"{metadata['namespace']}/{metadata['name']}",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "grant": chosen["name"],
        "broker_url": places.broker,
        "api_server": places.api_server,
        "api_host": urlsplit(places.api_server).netloc,
    }
    return fill(_template(tool), values | _proved(tool, found, chosen, places))


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return a template with its values; a line with an empty one is left out.

    Raises CommandError for a value that would mean something else where it stands.
    """
    for name in dict.fromkeys(_PLACEHOLDER.findall(template)):
        if not _PLAIN.fullmatch(values[name]):
            what = f"the {name.replace('_', ' ')} {values[name]!r}"
            raise CommandError(f"{what} would need quotes: write this configuration by hand, as docs/connect shows.")
    lines = template.splitlines(keepends=True)
    kept = [line for line in lines if all(values[name] for name in _PLACEHOLDER.findall(line))]
    return _PLACEHOLDER.sub(lambda match: values[match[1]], "".join(kept))


def _template(tool: Tool) -> str:
    return (resources.files("broker.cli.client") / "configs" / _TEMPLATES[tool]).read_text(encoding="utf-8")


def _grant(found: Manifest, name: str | None) -> Manifest:
    grants: dict[str, Manifest] = {grant["name"]: grant for grant in found["spec"]["grants"]}
    if name is None and len(grants) > 1:
        raise usage(f"the client has several grants: name one of {', '.join(grants)} with --grant.")
    chosen = next(iter(grants)) if name is None else name
    if chosen not in grants:
        raise CommandError(f"the client has no grant {chosen!r}; it has {', '.join(grants)}.")
    return grants[chosen]


def _proved(tool: Tool, found: Manifest, grant: Manifest, places: Places) -> dict[str, str]:
    """Return the values that depend on how the tool gets at a token; refuse a client that has no such way."""
    if tool in _BY_SECRET:
        _check_secret(tool, found)
        return {}
    if tool in _ISSUERS:
        return _jwt(tool, found, places.broker)
    return _in_vault(tool, found, grant, places.vault)


def _check_secret(tool: Tool, found: Manifest) -> None:
    if not digests(found["spec"].get("authentication")):
        metadata = found["metadata"]
        raise CommandError(
            f"{tool} proves itself with a secret, and the client has none: "
            f"`tokenbroker client rotate-secret {metadata['name']} -n {metadata['namespace']}` makes one."
        )


def _jwt(tool: Tool, found: Manifest, broker_url: str) -> dict[str, str]:
    others = {issuer for other, issuer in _ISSUERS.items() if other is not tool}
    proofs = [proof["oidc"] for proof in found["spec"].get("authentication") or () if "oidc" in proof]
    rules = [rule for rule in proofs if rule["issuer"] not in others]
    if not rules:
        raise CommandError(
            f"{tool} proves itself with JWTs, and the client takes none of its: register one with "
            f"`tokenbroker client add --oidc-issuer {_ISSUERS[tool]} --oidc-claim NAME=VALUE`."
        )
    if len(rules) > 1:
        names = ", ".join(rule["issuer"] for rule in rules)
        raise CommandError(f"the client takes JWTs in several ways ({names}): give {tool} a client of its own.")
    audience = rules[0].get("audience", broker_url)
    return {
        "audience": audience,
        "audience_in_url": quote(audience, safe=":/"),
        "environment": next(iter(rules[0]["claims"].get("environment", ())), ""),
    }


def _in_vault(tool: Tool, found: Manifest, grant: Manifest, vault_url: str) -> dict[str, str]:
    name = grant["name"]
    if "vault" not in grant:
        raise CommandError(
            f"{tool} reads from Vault, and the grant {name} is not kept there: "
            "register a client with `tokenbroker client add --vault`, or add `vault: {}` to the grant."
        )
    if not vault_url:
        raise usage(f"{tool} reads from Vault: say where that is with --vault-url.")
    known = [it.get("vault", {}) for it in found.get("status", {}).get("grants", ()) if it["name"] == name]
    copy = next((it for it in known if "path" in it), None)
    if copy is None:
        raise CommandError(
            f"the broker has not written a token of the grant {name} to Vault yet: "
            "`tokenbroker client show` says why; try again when it has."
        )
    mount, _, key = copy["path"].partition("/")
    return {
        "vault_url": vault_url,
        "vault_mount": mount,
        "vault_key": key,
        "vault_data_path": f"{mount}/data/{key}",
        "poll_interval": copy.get("safePollInterval", "5m"),
    }

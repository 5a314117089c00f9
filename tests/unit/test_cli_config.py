"""``client config``: what tools are told about a client, and the pages of docs/connect that show it."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.cli.client.configurations import Places, Tool, configuration, fill
from broker.cli.errors import CommandError, ExitCode
from tests.support.command import command
from tests.support.pages import DOCS, blocks, typed_commands

PLACES = Places("https://broker.example:8443", "https://kubernetes.example:6443", "https://vault.example:8200")
GITHUB = {"oidc": {"issuer": "https://token.actions.githubusercontent.com", "claims": {"repository_id": ["1"]}}}
GITLAB = {"oidc": {"issuer": "https://gitlab.com", "claims": {"project_id": ["1"]}}}
SECRET = {"clientSecret": {"digests": ["sha256:" + "0" * 64]}}
IN_VAULT = {"path": "secret/tokenbroker/prod/shop/web/default", "version": 1, "safePollInterval": "4h"}
PAGES = {
    Tool.PROMETHEUS: ("connect/prometheus.md", "yaml", 0),
    Tool.GITHUB: ("connect/github-actions.md", "yaml", 1),
    Tool.GITLAB: ("connect/gitlab.md", "yaml", 1),
    Tool.JENKINS: ("connect/jenkins.md", "groovy", 0),
    Tool.KUBECTL: ("connect/kubectl.md", "sh", 1),
    Tool.VAULT_AGENT: ("connect/vault-agent.md", "hcl", 0),
    Tool.EXTERNAL_SECRETS: ("connect/external-secrets.md", "yaml", 0),
    Tool.ARGOCD: ("connect/argocd.md", "yaml", 0),
}
"""The page of each tool, and which of its blocks is printed."""

REGISTERED_ON = {Tool.EXTERNAL_SECRETS: "connect/vault-agent.md"}
"""Where the client of a page is registered, if elsewhere."""

FROM_VAULT = {Tool.VAULT_AGENT, Tool.EXTERNAL_SECRETS, Tool.ARGOCD}


def _client(*proofs: dict[str, Any], grants: tuple[str, ...] = ("default",), vault: bool = False) -> dict[str, Any]:
    """Return a TokenClient shop/web as the API server has it."""
    copy = {"vault": {"ttl": "12h"}} if vault else {}
    return {
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"authentication": list(proofs), "grants": [{"name": name, **copy} for name in grants]},
        "status": {"grants": [{"name": name, "ready": True, "vault": IN_VAULT} for name in grants] if vault else []},
    }


def _kept(client: dict[str, Any]) -> dict[str, Any]:
    """Return what the broker says of the copy of the pages' clients."""
    metadata, copy = client["metadata"], client["spec"]["grants"][0]["vault"]
    path = f"secret/tokenbroker/prod/{metadata['namespace']}/{metadata['name']}/default"
    return {"path": path, "version": 1, "safePollInterval": copy["renewBefore"]}


FULL = _client(SECRET, GITHUB, GITLAB, vault=True)


@pytest.mark.parametrize("tool", PAGES)
def test_the_page_shows_what_is_printed(tool: Tool, tmp_path: Path) -> None:
    """The client is the one that the page's own command registers, and the options are those that it names."""
    page, language, position = PAGES[tool]
    registered = blocks(REGISTERED_ON.get(tool, page), "sh")[0]
    (add, *_) = [words for words in typed_commands(registered) if words[0] == "tokenbroker"]
    words = [str(tmp_path / word) if word.endswith(".secret") else word for word in add[3:]]
    made = command("client", "render", *words)
    client = list(yaml.safe_load_all(made.stdout))[-1]
    (told,) = re.findall(r"`tokenbroker client config ([^`]+)`", (DOCS / page).read_text())
    options = ["-n", client["metadata"]["namespace"], "--for", tool, "--broker-url", PLACES.broker]
    if tool in FROM_VAULT:
        options += ["--vault-url", PLACES.vault]
        client["status"] = {"grants": [{"name": "default", "vault": _kept(client)}]}

    assert shlex.split(told) == [client["metadata"]["name"], *options]
    assert blocks(page, language)[position] == configuration(tool, client, None, PLACES)


@pytest.mark.parametrize("tool", Tool)
def test_every_tool_is_told_everything(tool: Tool) -> None:
    """No placeholder is left, no secret is in it, and what is YAML can be read."""
    text = configuration(tool, FULL, None, PLACES)

    assert "<<" not in text
    assert SECRET["clientSecret"]["digests"][0] not in text
    if tool not in {Tool.JENKINS, Tool.KUBECTL, Tool.VAULT_AGENT}:
        assert all(yaml.safe_load_all(text))


def test_the_path_in_vault_is_taken_apart_as_its_readers_want_it() -> None:
    """Vault Agent names the API's path, External Secrets the mount and what is below."""
    agent = configuration(Tool.VAULT_AGENT, FULL, None, PLACES)
    store, secret = yaml.safe_load_all(configuration(Tool.EXTERNAL_SECRETS, FULL, None, PLACES))

    assert '{{ with secret \\"secret/data/tokenbroker/prod/shop/web/default\\" }}' in agent
    assert store["spec"]["provider"]["vault"]["path"] == "secret"
    assert secret["spec"]["dataFrom"] == [{"extract": {"key": "tokenbroker/prod/shop/web/default"}}]
    assert secret["spec"]["refreshInterval"] == "4h"


def test_the_client_says_for_whom_the_jwt_is_and_in_which_environment() -> None:
    """An audience of its own is asked for, encoded; without an environment the job names none."""
    claims = {"claims": {"environment": ["staging", "production"], "repository_id": ["1"]}}
    own = {"oidc": {"issuer": "https://github.example/_services/token", "audience": "a+b/c", **claims}}
    (job,) = yaml.safe_load(configuration(Tool.GITHUB, _client(own), None, PLACES))["jobs"].values()
    (without,) = yaml.safe_load(configuration(Tool.GITHUB, _client(GITHUB), None, PLACES))["jobs"].values()

    assert job["environment"] == "staging"
    assert "&audience=a%2Bb/c" in job["steps"][0]["run"]
    assert "environment" not in without


@pytest.mark.parametrize(
    ("tool", "client", "words"),
    [
        (Tool.PROMETHEUS, _client(GITHUB), "`tokenbroker client rotate-secret web -n shop` makes one"),
        (Tool.KUBECTL, _client(vault=True), "client rotate-secret"),
        (Tool.JENKINS, _client(GITHUB), "client rotate-secret"),
        (Tool.GITHUB, _client(SECRET), "--oidc-issuer https://token.actions"),
        (Tool.GITHUB, _client(GITLAB), "--oidc-issuer https://token.actions"),
        (Tool.GITLAB, _client(GITHUB), "--oidc-issuer https://gitlab.com"),
        (Tool.GITHUB, _client(GITHUB, GITHUB), "a client of its own"),
        (Tool.VAULT_AGENT, _client(SECRET), "add `vault: {}` to the grant"),
        (Tool.EXTERNAL_SECRETS, _client(vault=True) | {"status": {}}, "`tokenbroker client show` says why"),
        (Tool.GITHUB, _client({"oidc": GITHUB["oidc"] | {"claims": {"environment": ["$(id)"]}}}), "would need quotes"),
        (Tool.GITLAB, _client({"oidc": GITLAB["oidc"] | {"audience": '"x'}}), "would need quotes"),
    ],
)
def test_a_client_that_the_tool_cannot_use_is_refused(tool: Tool, client: dict[str, Any], words: str) -> None:
    """With what to do instead."""
    with pytest.raises(CommandError) as refused:
        configuration(tool, client, None, PLACES)

    assert words in str(refused.value)
    assert refused.value.code == ExitCode.REFUSED


def test_the_grant_is_named_where_there_are_several() -> None:
    """One that is not there is refused."""
    two = _client(SECRET, grants=("read", "write"))

    assert 'scopes: ["write"]' in configuration(Tool.PROMETHEUS, two, "write", PLACES)
    with pytest.raises(CommandError, match="read, write with --grant"):
        configuration(Tool.PROMETHEUS, two, None, PLACES)
    with pytest.raises(CommandError, match="no grant 'other'"):
        configuration(Tool.PROMETHEUS, two, "other", PLACES)


def test_a_tool_that_reads_from_vault_is_told_where_it_is() -> None:
    """--vault-url is asked for."""
    with pytest.raises(CommandError, match="--vault-url"):
        configuration(Tool.ARGOCD, FULL, None, Places(PLACES.broker, PLACES.api_server, ""))


@pytest.mark.parametrize("value", ["a b", "a\nb", "a'b", 'a"b', "a$b", "`a`", "-a", "a;b", "ä", "{{a}}"])
def test_no_value_can_mean_something_else_where_it_stands(value: str) -> None:
    """Configuration is code to the tools that read it."""
    with pytest.raises(CommandError, match="the thing"):
        fill("x: <<thing>>\n", {"thing": value})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--broker-url", "http://broker.example"), "broker's URL is not https"),
        (("--broker-url", "https://b.example", "--vault-url", "vault.example"), "Vault's URL"),
        (("--broker-url", "https://b.example", "--api-server", "https://u@k.example"), "API server's URL"),
    ],
)
def test_urls_are_https_urls(options: tuple[str, ...], words: str) -> None:
    """What is printed would carry secrets there."""
    ended = command("client", "config", "web", "--for", "prometheus", *options)

    assert (ended.code, ended.stdout) == (2, "")
    assert words in ended.stderr

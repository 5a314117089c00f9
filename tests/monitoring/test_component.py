"""deploy/components/monitoring: what is in it fits together, and what is made in it is up to date."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from broker.cli.app import build
from broker.errors import Reason
from broker.metrics.counted import TOKEN_REQUEST_FAILURES
from broker.metrics.scraped import UNREADY
from broker.metrics.vault import UNREACHABLE
from broker.model.status import ENDING, camel
from broker.services.storms.gate import Shed
from monitoring.__main__ import files
from monitoring.dashboard import ROWS
from monitoring.definitions import definitions
from tests.monitoring.rules import ALERTS, COMPONENT, RUNBOOKS
from tests.support.broker import ROOT, Tenant
from tests.support.crds import PROMETHEUS_RULES, SERVICE_MONITORS
from tests.support.lab import Lab
from tests.support.pages import blocks
from tests.support.prometheus import promtool

PAGES = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "runbooks").glob("*.md")}
USED = re.compile(r"\btokenbroker_[a-z_]+")
OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {namespace}
resources: [../../overlays/example]
components: [../../components/monitoring]
"""


@pytest.mark.parametrize("name", ["prometheus-rule.yaml", "dashboard.json"])
def test_what_is_made_is_what_the_metrics_and_rules_give(name: str) -> None:
    """Who adds a metric or changes a rule makes both anew."""
    assert (COMPONENT / name).read_text(encoding="utf-8") == files()[name], (
        "run `make monitoring`, and commit what it made"
    )


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    """The page has the alert's name, and says how to look and how to mend."""
    assert PAGES.keys() == ALERTS.keys()
    for name, page in PAGES.items():
        assert page.startswith(f"# {name}\n\n{ALERTS[name]['labels']['severity'].capitalize()}. ")
        assert re.findall(r"^## (.+)$", page, re.MULTILINE) == ["What it means", "Look", "Mend"]


def test_the_page_lists_every_alert() -> None:
    """With its severity, how long it waits, and what it means."""
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\(runbooks/\w+\.md\) \| (\w+) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)

    assert rows == [
        (name, rule["labels"]["severity"], rule.get("for", "at once"), rule["annotations"]["description"])
        for name, rule in ALERTS.items()
    ]


def test_a_prometheus_without_the_operator_takes_what_the_page_says(tmp_path: Path) -> None:
    """Its block, with the file of rules beside it."""
    [config] = [block for block in blocks("monitoring.md", "yaml") if block.startswith("rule_files:")]
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(COMPONENT / "rules.yaml", tmp_path)

    told = subprocess.run(
        [promtool(), "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )

    assert told.returncode == 0, told.stdout + told.stderr
    assert f"{len(ALERTS)} rules found" in told.stdout


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_urgent_it_is_and_where_to_read_on(alert: str) -> None:
    """Those three are what tools and people look for."""
    rule = ALERTS[alert]

    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}{alert}"


@pytest.mark.parametrize("page", PAGES)
def test_a_runbook_names_pages_and_metrics_that_exist(page: str) -> None:
    """At night nobody wants to find out that a name has changed."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[page])

    assert [link for link in links if not (ROOT / "docs" / "runbooks" / link).is_file()] == []
    assert metrics_in(PAGES[page]) <= definitions().keys()


NOT_READY = {*map(camel, (*TOKEN_REQUEST_FAILURES, *ENDING, Reason.POLICY_MISSING))} | {
    "VaultExpired",
    "InvalidSpec",
    "ProofNotAccepted",
    "Suspending",
    "Expiring",
}
REASONS: dict[str, Iterable[str]] = {
    "TokenbrokerUnready": UNREADY,
    "TokenbrokerTokenRequestsFailing": TOKEN_REQUEST_FAILURES,
    "TokenbrokerOverloaded": Shed,
    "TokenbrokerVaultUnreachable": UNREACHABLE,
    "TokenbrokerClientNotReady": NOT_READY,
}


@pytest.mark.parametrize("page", REASONS)
def test_a_runbook_has_a_word_on_each_reason(page: str) -> None:
    """The alert's label has that word."""
    assert [reason for reason in REASONS[page] if f"`{reason}`" not in PAGES[page]] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_runbook_uses_commands_that_exist(page: str) -> None:
    """With options that they have."""
    for line in re.findall(r"(?:^    |`)(tokenbroker [a-z][^`\n#]*)", PAGES[page], re.MULTILINE):
        words = line.split()[1:]
        command: Any = get_command(build())
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        known = {word for parameter in command.params for word in parameter.opts}

        assert not hasattr(command, "commands") or command.invoke_without_command, line
        assert [word for word in words if word.startswith("-") and word not in known] == [], line


def test_rules_ask_for_metrics_that_exist() -> None:
    """A renamed metric would silence its alert."""
    asked = {name for rule in ALERTS.values() for name in metrics_in(rule["expr"])}

    assert asked <= definitions().keys()


def test_the_dashboard_shows_every_metric_once_and_no_other() -> None:
    """Each in one panel, so that what is added is shown."""
    shown = [metrics_in(" ".join(target["expr"] for target in panel["targets"])) for panel in panels()]

    assert sorted(name for names in shown for name in names) == sorted(definitions())


def test_rows_name_metrics_that_exist() -> None:
    """Once each."""
    named = [f"tokenbroker_{name}" for names in ROWS.values() for name in names]

    assert len(named) == len(set(named))
    assert set(named) <= definitions().keys()


async def test_an_overlay_with_it_is_what_the_operator_takes(installed: Lab, tenant: Tenant, tmp_path: Path) -> None:
    """In another namespace too: the API server judges by the operator's own schemas, and refuses unknown fields."""
    for schema in (SERVICE_MONITORS, PROMETHEUS_RULES):
        await installed.cluster.kubectl("apply", "--server-side", "-f", str(schema.file()))
    await installed.cluster.kubectl("wait", "--for=condition=Established", "--all", "crd", "--timeout=60s")
    rendered = await rendered_overlay(installed, tenant.namespace, tmp_path)
    made = {kind: by_kind(rendered, kind) for kind in ("ServiceMonitor", "PrometheusRule", "Service", "ConfigMap")}
    wanted = [*made["ServiceMonitor"], *made["PrometheusRule"], *made["Service"]]
    shown = await installed.cluster.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", input=yaml.safe_dump_all(wanted)
    )

    assert shown.count("(server dry run)") == len(wanted) == 4
    assert {one["metadata"]["namespace"] for one in wanted} == {tenant.namespace}
    assert [it["metadata"]["name"] for it in made["ConfigMap"] if "dashboard.json" in it["data"]] == [
        "tokenbroker-dashboard"
    ]


async def test_the_monitor_finds_the_ops_port(installed: Lab, tmp_path: Path) -> None:
    """One Service has the labels that it selects, and that leads to the container's port."""
    rendered = await rendered_overlay(installed, "tokenbroker", tmp_path)
    [monitor] = by_kind(rendered, "ServiceMonitor")
    [deployment] = by_kind(rendered, "Deployment")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [it for it in by_kind(rendered, "Service") if wanted <= it["metadata"]["labels"].items()]
    [service] = found
    [endpoint], [port] = monitor["spec"]["endpoints"], service["spec"]["ports"]
    template = deployment["spec"]["template"]
    ports = {it["name"]: it["containerPort"] for it in template["spec"]["containers"][0]["ports"]}

    assert endpoint["port"] == port["name"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert ports[port["targetPort"]] == 9090
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "tokenbroker"
    assert endpoint["honorLabels"] is True


async def rendered_overlay(lab: Lab, namespace: str, folder: Path) -> list[dict[str, Any]]:
    """Return what an overlay with the component makes."""
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    overlay = folder / "deploy" / "overlays" / "watched"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(OVERLAY.format(namespace=namespace))
    return list(yaml.safe_load_all(await lab.cluster.kubectl("kustomize", str(overlay))))


def by_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return those of a kind."""
    return [document for document in documents if document["kind"] == kind]


def panels() -> Iterator[dict[str, Any]]:
    """Return the dashboard's panels of the broker's own metrics."""
    document = json.loads((COMPONENT / "dashboard.json").read_text(encoding="utf-8"))
    for panel in document["panels"]:
        if any("tokenbroker_" in target["expr"] for target in panel.get("targets", ())):
            yield panel


def metrics_in(text: str) -> set[str]:
    """Return the metrics that a text names; a histogram's series are the histogram."""
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in USED.findall(text)}

"""What the broker's own configuration says, as far as the doctor has to know it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from broker.cli.manifests import Manifest

CONFIG_KEY = "config.yaml"


@dataclass(frozen=True, slots=True)
class Settings:
    """Places, with the defaults of :mod:`broker.config`; what is empty is not known, or not configured."""

    server: str = ""
    ca: str = ""
    public_url: str = ""
    mount: str = "secret"
    prefix: str = "tokenbroker"
    auth_mount: str = "kubernetes"
    auth_role: str = "tokenbroker"
    auth_audience: str = "vault"
    policies_required: bool = True


def config_map_name(deployment: Manifest) -> str:
    """Return which ConfigMap a Deployment mounts for the broker's configuration, or nothing."""
    spec: Mapping[str, Any] = deployment.get("spec", {}).get("template", {}).get("spec", {})
    names = [str(it["configMap"].get("name", "")) for it in spec.get("volumes", ()) if "configMap" in it]
    return names[0] if names else ""


def read(config_map: Manifest) -> Settings:
    """Return what the ConfigMap of deploy/overlays/example holds; what it leaves out has its default."""
    data: Mapping[str, str] = config_map.get("data") or {}
    try:
        config = yaml.safe_load(data.get(CONFIG_KEY, ""))
    except yaml.YAMLError:
        config = None
    cluster, listen, vault = (_section(config, name) for name in ("cluster", "listen", "vault"))
    known = {
        "server": cluster.get("server"),
        "ca": data.get(PurePath(str(cluster.get("ca_file", ""))).name),
        "public_url": listen.get("public_url"),
        **{name: vault.get(name) for name in ("mount", "prefix", "auth_mount", "auth_role", "auth_audience")},
    }
    texts = {name: str(value) for name, value in known.items() if value}
    return Settings(**texts, policies_required=_section(config, "admission").get("policies") != "absent")


def _section(config: object, name: str) -> Mapping[str, Any]:
    section = config.get(name) if isinstance(config, dict) else None
    return section if isinstance(section, dict) else {}

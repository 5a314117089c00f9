"""What this release ships beside its code: manifests, the policy for Vault, and what its errors mean."""

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

BASE = "deploy/base"
VAULT_POLICY = "deploy/vault/policy.hcl"
ERRORS = "docs/errors.md"


def text(name: str) -> str:
    """Return a shipped file's text."""
    packaged = resources.files("broker") / name
    checkout = Path(__file__).parents[2] / name
    return packaged.read_text(encoding="utf-8") if packaged.is_file() else checkout.read_text(encoding="utf-8")


def manifests() -> list[dict[str, Any]]:
    """Return all objects that deploy/base makes, as they are before an overlay changes them."""
    listed = yaml.safe_load(text(f"{BASE}/kustomization.yaml"))["resources"]
    return [it for name in listed for it in yaml.safe_load_all(text(f"{BASE}/{name}")) if it]


def manifest(kind: str, name: str) -> dict[str, Any]:
    """Return one of them. Raises StopIteration where this release has no such object."""
    return next(it for it in manifests() if (it["kind"], it["metadata"]["name"]) == (kind, name))

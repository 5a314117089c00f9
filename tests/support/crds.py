"""CustomResourceDefinitions of others, from the Go module proxy: what their admission would say of a resource."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.support.go import cache_folder, go, go_tool, locked


@dataclass(frozen=True, slots=True)
class Schemas:
    """A file of a Go module."""

    module: str
    version: str
    path: str

    def file(self) -> Path:
        """Return the file, fetched when it is not there yet. Raises BuildError."""
        folder = cache_folder() / f"{self.module.rpartition('/')[2]}-{self.version}"
        file = folder / Path(self.path).name
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            if not file.exists():
                said = json.loads(go(go_tool(), "mod", "download", "-json", f"{self.module}@{self.version}"))
                new = folder / "new.yaml"
                shutil.copyfile(Path(said["Dir"]) / self.path, new)
                new.replace(file)
        return file


EXTERNAL_SECRETS = Schemas("github.com/external-secrets/external-secrets", "v1.3.2", "deploy/crds/bundle.yaml")
CERTIFICATES = Schemas(
    "github.com/cert-manager/cert-manager", "v1.19.1", "deploy/crds/cert-manager.io_certificates.yaml"
)
_PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator", "v0.85.0"
_EXAMPLES = "example/prometheus-operator-crd/monitoring.coreos.com"
SERVICE_MONITORS = Schemas(*_PROMETHEUS_OPERATOR, f"{_EXAMPLES}_servicemonitors.yaml")
PROMETHEUS_RULES = Schemas(*_PROMETHEUS_OPERATOR, f"{_EXAMPLES}_prometheusrules.yaml")

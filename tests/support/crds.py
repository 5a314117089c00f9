"""The schemas of External Secrets, from the Go module proxy: what its admission would say of a resource."""

import json
import shutil
from pathlib import Path

from tests.support.go import cache_folder, go, go_tool, locked

MODULE = "github.com/external-secrets/external-secrets"
VERSION = "v1.3.2"


def schemas() -> Path:
    """Return the file with its CustomResourceDefinitions, fetched when it is not there yet. Raises BuildError."""
    folder = cache_folder() / f"external-secrets-{VERSION}"
    file = folder / "bundle.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        if not file.exists():
            said = json.loads(go(go_tool(), "mod", "download", "-json", f"{MODULE}@{VERSION}"))
            new = folder / "new.yaml"
            shutil.copyfile(Path(said["Dir"]) / "deploy" / "crds" / "bundle.yaml", new)
            new.replace(file)
    return file

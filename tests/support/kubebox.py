"""The binary that holds a real Kubernetes control plane: found in the cache, or built once.

``python -m tests.support.kubebox`` builds it and prints where it is.
"""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

from tests.support.go import BuildError, cache_folder, environment, go, go_tool, locked, say
from tests.support.processes import guarded_folder

SOURCE = Path(__file__).resolve().parent.parent / "kubebox"
VERSION = "v1.37.2"
_VERSION_PACKAGE = "k8s.io/component-base/version"
_PROGRESS_SECONDS = 5.0


def kubebox() -> Path:
    """Return the path of the binary, building it when the cache has none.

    A first build takes six to ten minutes on two cores and reports its progress on stderr; concurrent
    callers wait for the one that builds. Raises BuildError.
    """
    binary = cache_folder() / f"kubebox-{fingerprint()}" / "kubebox"
    if binary.exists():
        return binary
    binary.parent.mkdir(parents=True, exist_ok=True)
    with locked(binary.parent / "lock"):
        if not binary.exists():
            _build(binary)
    return binary


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
    tool = go_tool()
    with guarded_folder(binary.parent) as (folder, group):
        unfinished = folder / "kubebox"
        _compile(tool, unfinished, group)
        unfinished.replace(binary)


def _compile(tool: Path, target: Path, group: int) -> None:
    log = target.with_suffix(".log")
    total = len(go(tool, "list", "-deps", ".", cwd=SOURCE).split())
    command = [str(tool), "build", "-v", *build_flags(), "-o", str(target), "."]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=SOURCE,
            env=environment() | {"GOTMPDIR": str(target.parent)},
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
            say(_progress(log, total, time.monotonic() - started))
        else:
            say(f"build ended after {time.monotonic() - started:.0f} s")
            return


def _progress(log: Path, total: int, seconds: float) -> str:
    lines = log.read_text(errors="replace").splitlines()
    compiled = sum(not line.startswith("go: ") for line in lines)
    return f"{compiled} packages compiled, of {total} less those that were cached; {seconds:.0f} s"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


if __name__ == "__main__":
    sys.stdout.write(f"{kubebox()}\n")

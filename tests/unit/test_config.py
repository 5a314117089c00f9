"""Configuration: checked at start, and every wrong value named at once."""

from pathlib import Path

import pytest
import yaml

from broker.config import ConfigError, load
from broker.server import run


@pytest.fixture
def valid(tmp_path: Path) -> dict[str, object]:
    """Return the smallest configuration that works outside a pod."""
    file = tmp_path / "file"
    file.write_text("x")
    return {
        "cluster": {"name": "lab", "server": "https://lab:6443", "ca_file": str(file)},
        "kubernetes": {"ca_file": str(file), "token_file": str(file)},
    }


def written(folder: Path, document: object) -> Path:
    """Return a file with a document."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_smallest_configuration_listens_on_loopback(tmp_path: Path, valid: dict[str, object]) -> None:
    """Defaults are safe ones."""
    config = load(written(tmp_path, valid))

    assert (config.listen.address, config.listen.tls, config.audit.file) == ("127.0.0.1", None, "-")


def test_the_environment_goes_over_the_file(
    tmp_path: Path, valid: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """BROKER_LISTEN__PORT is listen.port, and leaves its neighbours alone."""
    monkeypatch.setenv("BROKER_LISTEN__PORT", "1234")

    config = load(written(tmp_path, valid | {"listen": {"port": 1, "drain_seconds": 7}}))

    assert (config.listen.port, config.listen.drain_seconds) == (1234, 7)


def test_all_wrong_values_are_named_in_one_message(tmp_path: Path, valid: dict[str, object]) -> None:
    """Missing, unknown, ill-typed and unreadable values together."""
    document = valid | {
        "cluster": {"name": "Not A Label", "server": "http://plain", "ca_file": "/missing"},
        "listen": {"port": 70000, "prot": 1},
        "ops": {"port": "many"},
    }

    with pytest.raises(ConfigError) as raised:
        load(written(tmp_path, document))

    for place in ("cluster.name", "cluster.server", "cluster.ca_file", "listen.port", "listen.prot", "ops.port"):
        assert place in str(raised.value)


@pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.1", "::", "broker.example"])  # noqa: S104 - the point
def test_beyond_loopback_nothing_starts_without_tls(tmp_path: Path, valid: dict[str, object], address: str) -> None:
    """Unless the operator says that TLS ends in front."""
    with pytest.raises(ConfigError, match="without TLS"):
        load(written(tmp_path, valid | {"listen": {"address": address}}))

    said = load(written(tmp_path, valid | {"listen": {"address": address, "tls": "terminated-upstream"}}))
    assert said.listen.tls == "terminated-upstream"


@pytest.mark.parametrize("text", ["- a\n- list\n", "a: [", "_env_file: x\n", "\x00"])
def test_what_is_no_configuration_is_said_so(tmp_path: Path, text: str) -> None:
    """A list, broken YAML, or a way around the settings."""
    path = tmp_path / "config.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError):
        load(path)


def test_a_wrong_configuration_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message goes to standard error."""
    assert run(tmp_path / "missing.yaml") == 2
    assert "missing.yaml" in capsys.readouterr().err

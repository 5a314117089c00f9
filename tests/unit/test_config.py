"""Configuration: checked at start, and every wrong value named at once."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.clock import SystemClock
from broker.config import ConfigError, load
from broker.metrics.counted import Metrics
from broker.proofs import ClusterNames, proof_checks
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


def test_without_more_clients_come_from_the_cluster_and_policies_hold(tmp_path: Path, valid: dict[str, object]) -> None:
    """What loosens the broker's limits has to be said."""
    config = load(written(tmp_path, valid))

    assert config.registry.directory is None
    assert config.admission.policies == "required"


def test_a_directory_of_clients_can_be_read_at_start(tmp_path: Path, valid: dict[str, object]) -> None:
    """A file, or nothing, is a mistake that is named."""
    assert load(written(tmp_path, valid | {"registry": {"directory": str(tmp_path)}})).registry.directory == tmp_path
    for wrong in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(ConfigError, match=r"registry\.directory: cannot be read"):
            load(written(tmp_path, valid | {"registry": {"directory": str(wrong)}}))
    with pytest.raises(ConfigError, match=r"admission\.policies"):
        load(written(tmp_path, valid | {"admission": {"policies": "some"}}))


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


GITHUB = "https://token.actions.githubusercontent.com"


@pytest.mark.parametrize(
    ("issuer", "words"),
    [
        ({"issuer": GITHUB}, "anybody can get a token of"),
        ({"issuer": GITHUB + "/"}, "anybody can get a token of"),
        ({"issuer": "https://gitlab.com", "mandatory_claims": ["project_id"]}, "anybody can get a token of"),
        ({"issuer": "http://issuer.example"}, "https"),
        ({"issuer": "https://issuer.example", "jwks_uri": "http://issuer.example/keys"}, "jwks_uri"),
        ({"issuer": "https://issuer.example", "jwks_file": "/missing"}, "jwks_file"),
        ({"issuer": "https://issuer.example", "algorithms": ["HS256"]}, "algorithms"),
        ({"issuer": "https://issuer.example", "algorithms": ["none"]}, "algorithms"),
        ({"issuer": "https://issuer.example", "algorithms": []}, "algorithms"),
        ({"issuer": "https://issuer.example", "claims": {"sub": []}}, "claims"),
        ({"issuer": "https://issuer.example", "claims": {"sub": "a"}}, "claims"),
        ({"issuer": "https://issuer.example", "claims": {"sub": [1]}}, "claims"),
        ({"issuer": "https://issuer.example", "max_age_seconds": 0}, "max_age_seconds"),
        ({"issuer": "https://issuer.example", "max_age": 60}, "max_age"),
    ],
    ids=str,
)
def test_an_issuer_that_would_not_be_safe(
    tmp_path: Path, valid: dict[str, object], issuer: dict[str, object], words: str
) -> None:
    """Shared secrets, plain HTTP, and public issuers without a word on what makes a JWT yours."""
    with pytest.raises(ConfigError, match=words):
        load(written(tmp_path, valid | {"oidc": {"issuers": [issuer]}}))


def test_an_issuer_as_it_should_be(tmp_path: Path, valid: dict[str, object]) -> None:
    """RS256 and a day are what counts where nothing is said; the name stays as it was written."""
    told = {"issuer": "https://issuer.example/", "claims": {"owner": ["1"]}, "mandatory_claims": ["repository_id"]}
    (issuer,) = load(written(tmp_path, valid | {"oidc": {"issuers": [told]}})).oidc.issuers

    assert issuer.issuer == "https://issuer.example/"
    assert sorted(issuer.algorithms) == ["RS256"]
    assert issuer.max_age_seconds == 86400
    assert issuer.claims == {"owner": ("1",)}
    assert sorted(issuer.mandatory_claims) == ["repository_id"]


@pytest.mark.parametrize(
    "issuers",
    [
        [{"issuer": "https://issuer.example"}] * 2,
        [{"issuer": "https://issuer.example", "jwks_uri": "https://issuer.example/k", "jwks_file": __file__}],
    ],
    ids=["twice", "two places for keys"],
)
def test_issuers_that_contradict_themselves(
    tmp_path: Path, valid: dict[str, object], issuers: list[dict[str, str]]
) -> None:
    """Nobody could say which one counts."""
    with pytest.raises(ConfigError, match="oidc"):
        load(written(tmp_path, valid | {"oidc": {"issuers": issuers}}))


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://broker.example", "https://broker.example"),
        ("https://broker.example:8443/base/", "https://broker.example:8443/base"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://broker.example", None),
        ("https://user@broker.example", None),
        ("https://broker.example?x", None),
        ("broker.example", None),
        ("http://127.0.0.1.evil.example", None),
    ],
)
def test_the_public_url(tmp_path: Path, valid: dict[str, object], url: str, kept: str | None) -> None:
    """It is https, but for this machine alone."""
    path = written(tmp_path, valid | {"listen": {"public_url": url}})
    if kept is None:
        with pytest.raises(ConfigError, match="public_url"):
            load(path)
    else:
        assert load(path).listen.public_url == kept


def test_trusted_proxies_are_networks(tmp_path: Path, valid: dict[str, object]) -> None:
    """Of both kinds; an address with bits beyond its mask is a mistake."""
    path = written(tmp_path, valid | {"listen": {"trusted_proxies": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]}})
    assert [str(one) for one in load(path).listen.trusted_proxies] == ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]

    with pytest.raises(ConfigError, match="trusted_proxies"):
        load(written(tmp_path, valid | {"listen": {"trusted_proxies": ["10.0.0.1/8"]}}))


async def test_the_cluster_itself_is_no_oidc_issuer(tmp_path: Path, valid: dict[str, object]) -> None:
    """Its accounts are proved by TokenReview, which notices that one was deleted; a JWT alone does not."""
    cluster = ClusterNames("https://kubernetes.default.svc", "https://kubernetes.default.svc")
    listed = {"oidc": {"issuers": [{"issuer": cluster.issuer}]}}
    config = load(written(tmp_path, valid | listed))
    nothing: Any = None

    with pytest.raises(ConfigError, match="is this cluster"):
        async with proof_checks(config, nothing, nothing, cluster, clock=SystemClock(), metrics=Metrics()):
            pass


def test_a_lease_as_it_is_by_default(tmp_path: Path, valid: dict[str, object]) -> None:
    """The name is the one that the broker's Role in deploy/base allows."""
    lease = load(written(tmp_path, valid)).lease
    documents = yaml.safe_load_all((Path(__file__).parents[2] / "deploy" / "base" / "rbac.yaml").read_text())
    [rules] = [one["rules"] for one in documents if one["metadata"]["name"] == "tokenbroker-lease" and "rules" in one]

    assert (lease.name, lease.duration_seconds) == ("tokenbroker-leader", 15)
    assert [(rule.get("resourceNames"), rule["verbs"]) for rule in rules] == [
        (None, ["create"]),
        ([lease.name], ["get", "update"]),
    ]


@pytest.mark.parametrize(
    ("lease", "place"),
    [
        ({"duration_seconds": 4}, "lease.duration_seconds"),
        ({"duration_seconds": 301}, "lease.duration_seconds"),
        ({"duration_seconds": 7.5}, "lease.duration_seconds"),
        ({"name": "a/b"}, "lease.name"),
        ({"renew_seconds": 1}, "lease.renew_seconds"),
    ],
    ids=str,
)
def test_a_lease_that_could_not_work(
    tmp_path: Path, valid: dict[str, object], lease: dict[str, object], place: str
) -> None:
    """Too short to be renewed in time, too long to be waited for, or no name; what follows from it is not given."""
    with pytest.raises(ConfigError, match=place):
        load(written(tmp_path, valid | {"lease": lease}))

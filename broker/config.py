"""The broker's configuration: one YAML file with ``BROKER_*`` environment variables over it.

``BROKER_LISTEN__PORT=8443`` sets ``listen.port``. Everything is checked at start, and every wrong value is
named in one message.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from broker.config_limits import LimitConfig, QueueConfig
from broker.config_values import (
    DnsLabel,
    HttpsUrl,
    IssuerUrl,
    Network,
    PathSegment,
    PathSegments,
    PublicUrl,
    ReadableDirectory,
    ReadableFile,
    Seconds,
    Section,
    is_loopback,
)

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")

Port = Annotated[int, Field(ge=0, le=65535)]


class ConfigError(Exception):
    """The configuration is not usable; the message names every wrong value."""


ClaimName = Annotated[str, Field(min_length=1, max_length=128)]
ClaimValues = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=512)], ...], Field(min_length=1)]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]

PUBLIC_ISSUERS = frozenset(
    {
        "https://token.actions.githubusercontent.com",
        "https://gitlab.com",
        "https://accounts.google.com",
        "https://agent.buildkite.com",
        "https://app.terraform.io",
        "https://vstoken.dev.azure.com",
    }
)
"""Issuers who have customers of all the world under one name."""


class ClusterConfig(Section):
    """What clients are told about the cluster; never taken from a client's namespace, where it can be forged."""

    name: DnsLabel
    server: HttpsUrl
    ca_file: ReadableFile


class KubernetesConfig(Section):
    """How the broker itself reaches the API server; the defaults are those of a pod."""

    server: HttpsUrl = "https://kubernetes.default.svc"
    ca_file: ReadableFile = SERVICE_ACCOUNT_DIR / "ca.crt"
    token_file: ReadableFile = SERVICE_ACCOUNT_DIR / "token"
    timeout_seconds: Seconds = 10.0
    audience: str = ""
    """The API server's own audience; empty: the first one in the broker's own token."""


class TlsFiles(Section):
    """Certificate chain and key of the API listener, and whose client certificates count (PEM).

    All are read again when they change.
    """

    cert_file: ReadableFile
    key_file: ReadableFile
    client_ca_file: ReadableFile | None = None


class ListenConfig(Section):
    """Where callers reach the broker."""

    address: str = "127.0.0.1"
    port: Port = 8443
    public_url: PublicUrl | None = None
    """The URL under which callers reach the broker: its name as an OAuth issuer and the audience of their proofs."""
    tls: TlsFiles | Literal["terminated-upstream"] | None = None
    body_timeout_seconds: Seconds = 10.0
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 8192
    """How many callers are connected at a time; fewer where the process may not open as many files."""
    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=300)] = 10.0
    """How long a stop (SIGTERM) goes on serving, not ready any more, until everybody has learnt to call another one."""
    drain_seconds: Annotated[float, Field(ge=0, le=600)] = 25.0
    trusted_proxies: tuple[Network, ...] = ()
    """Whose X-Forwarded-For is believed, as networks such as 10.0.0.0/8; the caller's address is what they say."""

    @model_validator(mode="after")
    def _tls_beyond_loopback(self) -> Self:
        if self.tls is None and not is_loopback(self.address):
            raise ValueError(
                f"listening on {self.address} without TLS: give listen.tls.cert_file and listen.tls.key_file, "
                "or say listen.tls: terminated-upstream where a proxy in front ends TLS"
            )
        return self


class IssuerConfig(Section):
    """An issuer of JWTs that clients may be proved with (OpenID Connect)."""

    issuer: IssuerUrl
    """As it stands in ``iss``, letter by letter."""
    jwks_uri: HttpsUrl | None = None
    """Where its keys are; found by discovery at the issuer's own origin where left out."""
    jwks_file: ReadableFile | None = None
    """A file with its keys instead, for issuers that the broker cannot reach."""
    ca_file: ReadableFile | None = None
    algorithms: Annotated[frozenset[Algorithm], Field(min_length=1)] = frozenset({"RS256"})
    max_age_seconds: Annotated[float, Field(gt=0, le=7 * 86400)] = 86400.0
    """The oldest ``iat`` that counts, however long the token says that it lives."""
    claims: dict[ClaimName, ClaimValues] = Field(default_factory=dict)
    """What must be so in every token, whoever the client is: of each claim, one of the values."""
    mandatory_claims: frozenset[ClaimName] = frozenset()
    """What every TokenClient has to name a value of."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.jwks_uri is not None and self.jwks_file is not None:
            raise ValueError("give jwks_uri or jwks_file, not both")
        if self.issuer.rstrip("/") in PUBLIC_ISSUERS and not self.claims:
            raise ValueError(
                f"anybody can get a token of {self.issuer}: name in claims what makes one yours, "
                "such as repository_owner_id on GitHub or namespace_id on GitLab"
            )
        return self


class OidcConfig(Section):
    """Whose JWTs are believed."""

    issuers: Annotated[tuple[IssuerConfig, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [issuer.issuer for issuer in self.issuers]
        if len(set(names)) != len(names):
            raise ValueError("two issuers have the same name")
        return self


class RegistryConfig(Section):
    """Where TokenClients come from: the cluster, or a directory of files."""

    directory: ReadableDirectory | None = None


class AdmissionConfig(Section):
    """Whether the admission policies of deploy/base hold the broker and everybody else to their limits."""

    policies: Literal["required", "absent"] = "required"


class OpsConfig(Section):
    """The second listener: /metrics, /livez and /readyz, in plain HTTP."""

    address: str = "127.0.0.1"
    port: Port = 9090


class AuditConfig(Section):
    """Where audit records go: a file (appended to), or ``-`` for standard output."""

    file: str = "-"


class LeaseConfig(Section):
    """The Lease by which one replica leads, in the broker's own namespace."""

    name: DnsLabel = "tokenbroker-leader"
    duration_seconds: Annotated[int, Field(ge=5, le=300)] = 15
    """How long after its last sign of life a leader is replaced. It stops by itself after two thirds of that."""


class VaultConfig(Section):
    """Where tokens are kept for readers of Vault."""

    address: HttpsUrl
    ca_file: ReadableFile | None = None
    mount: PathSegments = "secret"
    prefix: PathSegments = "tokenbroker"
    auth_mount: PathSegments = "kubernetes"
    auth_role: PathSegment = "tokenbroker"
    auth_audience: str = "vault"
    """The audience of ``token_file``; it can never be granted to a client."""
    token_file: ReadableFile = Path("/var/run/secrets/tokenbroker.dev/vault/token")
    timeout_seconds: Seconds = 10.0


class Config(BaseSettings):
    """Everything an operator decides."""

    model_config = SettingsConfigDict(env_prefix="BROKER_", env_nested_delimiter="__", extra="forbid", frozen=True)

    cluster: ClusterConfig
    kubernetes: KubernetesConfig
    listen: ListenConfig
    oidc: OidcConfig
    registry: RegistryConfig
    admission: AdmissionConfig
    ops: OpsConfig
    audit: AuditConfig
    lease: LeaseConfig
    queue: QueueConfig
    limits: Annotated[tuple[LimitConfig, ...], Field(max_length=64)] = ()
    vault: VaultConfig | None = None
    namespace: DnsLabel = "tokenbroker"
    """The broker's own namespace: nothing in it is ever granted."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _limits_can_match(self) -> Self:
        for number, limit in enumerate(self.limits[:-1]):
            if not limit.namespaces and not limit.namespace_labels:
                raise ValueError(f"limits: entry {number + 1} is for every namespace, so none after it counts")
        return self

    @model_validator(mode="after")
    def _labels_are_known(self) -> Self:
        if self.registry.directory is not None and any(limit.namespace_labels for limit in self.limits):
            raise ValueError(
                "limits: namespaces cannot be told by labels where clients stand in a directory: name them"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment over the file, and nothing else."""
        return env_settings, init_settings


_ALL_SECTIONS: dict[str, Any] = {
    section: {}
    for section in ("kubernetes", "listen", "oidc", "registry", "admission", "ops", "audit", "lease", "queue")
}
"""Named even where the file leaves them out, so that their defaults are checked like everything else."""


def load(path: Path) -> Config:
    """Return the checked configuration. Raises ConfigError naming every wrong value at once."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(document, dict | None):
        raise ConfigError(f"{path}: must be a mapping of sections such as 'cluster:' and 'listen:'")
    if any(str(key).startswith("_") for key in document or {}):
        raise ConfigError(f"{path}: sections never start with an underscore")  # pydantic-settings has its own there
    try:
        return Config(**(_ALL_SECTIONS | {str(key): value for key, value in (document or {}).items()}))
    except ValidationError as error:
        raise ConfigError(_explain(path, error)) from None


def _explain(path: Path, error: ValidationError) -> str:
    lines = [f"{path}: {error.error_count()} wrong value(s):"]
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        place = ".".join(str(part) for part in problem["loc"])
        lines.append(f"  {place}: {problem['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)

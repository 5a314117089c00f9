"""The broker's configuration: one YAML file with ``BROKER_*`` environment variables over it.

``BROKER_LISTEN__PORT=8443`` sets ``listen.port``. Everything is checked at start, and every wrong value is
named in one message.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from broker.model.client import DNS_LABEL

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=300)]


class ConfigError(Exception):
    """The configuration is not usable; the message names every wrong value."""


def _https(value: str) -> str:
    if not re.fullmatch(r"https://[^\s/?#@]+(/[^\s?#]*)?", value):
        raise ValueError("must be an https:// URL without user, query or fragment")
    return value.rstrip("/")


def _readable(value: Path) -> Path:
    try:
        with value.open("rb"):
            return value
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def _path_segment(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise ValueError("must be letters, digits, '.', '_' and '-' only, and start with a letter or digit")
    return value


def _path_segments(value: str) -> str:
    for segment in value.split("/"):
        _path_segment(segment)
    return value


def _dns_label(value: str) -> str:
    if not DNS_LABEL.fullmatch(value):
        raise ValueError("must be a DNS label")
    return value


def _public_url(value: str) -> str:
    host = urlsplit(value).hostname or ""
    return _https(value) if not (value.startswith("http://") and _is_loopback(host)) else value.rstrip("/")


HttpsUrl = Annotated[str, AfterValidator(_https)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]
PathSegment = Annotated[str, AfterValidator(_path_segment)]
PathSegments = Annotated[str, AfterValidator(_path_segments)]
DnsLabel = Annotated[str, AfterValidator(_dns_label)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are mistakes, not extras."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


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
    """Certificate chain and key of the API listener (PEM); read again when they change."""

    cert_file: ReadableFile
    key_file: ReadableFile


class ListenConfig(Section):
    """Where callers reach the broker."""

    address: str = "127.0.0.1"
    port: Port = 8443
    public_url: PublicUrl | None = None
    """The URL under which callers reach the broker: its name as an OAuth issuer and the audience of their proofs."""
    tls: TlsFiles | Literal["terminated-upstream"] | None = None
    body_timeout_seconds: Seconds = 10.0
    drain_seconds: Annotated[float, Field(ge=0, le=600)] = 25.0

    @model_validator(mode="after")
    def _tls_beyond_loopback(self) -> Self:
        if self.tls is None and not _is_loopback(self.address):
            raise ValueError(
                f"listening on {self.address} without TLS: give listen.tls.cert_file and listen.tls.key_file, "
                "or say listen.tls: terminated-upstream where a proxy in front ends TLS"
            )
        return self


class OpsConfig(Section):
    """The second listener: /metrics, /livez and /readyz, in plain HTTP."""

    address: str = "127.0.0.1"
    port: Port = 9090


class AuditConfig(Section):
    """Where audit records go: a file (appended to), or ``-`` for standard output."""

    file: str = "-"


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
    ops: OpsConfig
    audit: AuditConfig
    vault: VaultConfig | None = None
    namespace: DnsLabel = "tokenbroker"
    """The broker's own namespace: nothing in it is ever granted."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

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


_ALL_SECTIONS: dict[str, Any] = {"kubernetes": {}, "listen": {}, "ops": {}, "audit": {}}
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


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"

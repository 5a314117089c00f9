"""TokenClient resources as the registry reads them: strictly, for the schema may have been gone around."""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from sys import intern
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from broker.errors import Fault, Reason
from broker.model.access import parse_action
from broker.model.client import (
    ROTATE_REQUESTED,
    Client,
    ClientId,
    Expect,
    Grant,
    Revocation,
    TtlRange,
    VaultCopy,
)
from broker.model.decision import MAX_REUSE_SECONDS, MAX_TTL_SECONDS, MIN_TTL_SECONDS
from broker.model.duration import parse_duration
from broker.model.rate import MAX_PER_MINUTE, Rate
from broker.ports import Registration
from broker.registration.kept_status import KeptStatus
from broker.registration.proofs import Authentication, Label, Strict, Subdomain, read_proofs

MIN_RENEW_BEFORE_SECONDS = 60
MAX_DURATION_CHARACTERS = 16


def _parsed(value: object) -> int:
    if not isinstance(value, str) or len(value) > MAX_DURATION_CHARACTERS:
        raise ValueError("is not a duration such as 15m")
    return parse_duration(value)


def _moment(value: object) -> datetime:
    if not isinstance(value, str) or not _DATE_TIME.fullmatch(value):
        raise ValueError("is not a time such as 2027-06-30T00:00:00Z (RFC 3339)")
    return datetime.fromisoformat(value.upper())


def _action(value: str) -> str:
    parse_action(value)
    return value


_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
Moment = Annotated[datetime, BeforeValidator(_moment)]
Seconds = Annotated[int, BeforeValidator(_parsed)]
_Actions = list[Annotated[str, Field(max_length=256, pattern=r"^[!-~]+( [!-~]+)+$"), AfterValidator(_action)]]

_PerMinute = Annotated[int, Field(strict=True, ge=1, le=MAX_PER_MINUTE)]


_ttl_range = lru_cache(maxsize=256)(TtlRange)
_vault_copy = lru_cache(maxsize=256)(VaultCopy)
"""Ten thousand clients have few different ones, and many equal names: they share them."""


class _ServiceAccount(Strict):
    name: Subdomain


class _Ttl(Strict):
    default: Seconds = 15 * 60
    max: Seconds = 3600


class _Vault(Strict):
    ttl: Seconds = 12 * 3600
    renewBefore: Seconds | None = None  # noqa: N815 - the resource's own spelling


class _Expect(Strict):
    allow: _Actions = Field(default=[], max_length=16)
    deny: _Actions = Field(default=[], max_length=16)


class _Grant(Strict):
    name: Label = "default"
    serviceAccount: _ServiceAccount  # noqa: N815 - the resource's own spelling
    audiences: list[Annotated[str, Field(max_length=256, pattern=r"^[\x21-\x7e]+$")]] = Field(default=[], max_length=8)
    ttl: _Ttl = Field(default_factory=_Ttl)
    revocation: Literal["Grant", "Token", "None"] = "Grant"
    reuse: Seconds = 0
    expect: _Expect = Field(default_factory=_Expect)
    vault: _Vault | None = None


class _Rate(Strict):
    perMinute: _PerMinute  # noqa: N815 - the resource's own spelling
    burst: _PerMinute | None = None


class _Spec(Strict):
    owner: Annotated[str, Field(max_length=253)] = ""
    rate: _Rate | None = None
    notAfter: Moment | None = None  # noqa: N815 - the resource's own spelling
    suspend: bool = False
    authentication: list[Authentication] = Field(default=[], max_length=4)
    grants: list[_Grant] = Field(min_length=1, max_length=8)


def read_registration(resource: Mapping[str, Any]) -> Registration:
    """Return what a TokenClient says. One that is not valid yields a fault instead of a client, never a guess.

    Nothing else that its writer put there is kept, so that it takes no memory.
    """
    metadata, status = resource["metadata"], resource.get("status")
    client_id = ClientId(intern(metadata["namespace"]), metadata["name"])
    client: Client | None = None
    fault: Fault | None = None
    try:
        client = _client(client_id, metadata, _Spec.model_validate(resource.get("spec", {})))
    except ValidationError as error:
        fault = Fault(Reason.INVALID_REQUEST, _explain(error))
    except ValueError as error:
        fault = Fault(Reason.INVALID_REQUEST, f"spec: {error}")
    return Registration(
        id=client_id,
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        client=client,
        fault=fault,
        status=KeptStatus(status) if status else {},
        deleting="deletionTimestamp" in metadata,
        finalizers=tuple(map(intern, metadata.get("finalizers", ()))),
        resource_version=metadata.get("resourceVersion", ""),
        suspended=_suspended(resource.get("spec")),
    )


def _suspended(spec: object) -> bool:
    return isinstance(spec, Mapping) and spec.get("suspend") is True


def _client(client_id: ClientId, metadata: Mapping[str, Any], spec: _Spec) -> Client:
    grants = tuple(_grant(grant) for grant in spec.grants)
    if len({grant.name for grant in grants}) != len(grants):
        raise ValueError("two grants have the same name")
    if not spec.authentication and not any(grant.vault for grant in grants):
        raise ValueError("a client without authentication needs a grant with vault, or nobody can use it")
    return Client(
        id=client_id,
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        owner=spec.owner,
        not_after=spec.notAfter,
        suspended=spec.suspend,
        proofs=read_proofs(spec.authentication),
        grants=grants,
        rotate_requested=_rotate_requested(metadata),
        rate=None if spec.rate is None else Rate.of(spec.rate.perMinute, spec.rate.burst),
    )


def _rotate_requested(metadata: Mapping[str, Any]) -> datetime | None:
    """Return when new versions in Vault were asked for; what is no time asks for nothing."""
    try:
        return _moment((metadata.get("annotations") or {}).get(ROTATE_REQUESTED))
    except ValueError:
        return None


def _grant(grant: _Grant) -> Grant:
    default, longest = grant.ttl.default, grant.ttl.max
    if not MIN_TTL_SECONDS <= default <= longest <= MAX_TTL_SECONDS:
        raise ValueError(f"grant {grant.name}: ttl must be 10m <= default <= max <= 24h")
    if grant.reuse > MAX_REUSE_SECONDS:
        raise ValueError(f"grant {grant.name}: reuse is at most 5m")
    if grant.reuse and Revocation(grant.revocation) is Revocation.TOKEN:
        raise ValueError(f"grant {grant.name}: a token with an end of its own (revocation: Token) is never shared")
    return Grant(
        name=intern(grant.name),
        service_account=intern(grant.serviceAccount.name),
        audiences=tuple(grant.audiences),
        ttl=_ttl_range(default, longest),
        vault=None if grant.vault is None else _vault(grant.name, grant.vault),
        revocation=Revocation(grant.revocation),
        expect=Expect(tuple(grant.expect.allow), tuple(grant.expect.deny)),
        reuse_seconds=grant.reuse,
    )


def _vault(name: str, vault: _Vault) -> VaultCopy:
    ttl = vault.ttl
    renew_before = ttl // 3 if vault.renewBefore is None else vault.renewBefore
    if not MIN_TTL_SECONDS <= ttl <= MAX_TTL_SECONDS:
        raise ValueError(f"grant {name}: vault.ttl must be from 10m to 24h")
    if not MIN_RENEW_BEFORE_SECONDS <= renew_before < ttl:
        raise ValueError(f"grant {name}: vault.renewBefore must be from 1m to less than vault.ttl")
    return _vault_copy(ttl, renew_before)


def _explain(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"spec.{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems[:5])

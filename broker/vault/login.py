"""The broker's login to Vault: a token of its own, kept current without being asked for twice.

Source: https://developer.hashicorp.com/vault/docs/auth/kubernetes
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol, Self

from hvac.api.auth_methods import Kubernetes, Token

from broker.errors import BrokerError
from broker.model.sensitive import Sensitive
from broker.ports import Clock
from broker.vault.answer import Answer, checked, denied, unavailable
from broker.vault.transport import ApiAdapter, VaultTransport

RENEW_AT = 2 / 3
"""The part of a lease after which the token is renewed."""

WORTH_RENEWING = 1 / 2
"""Where a renewal gives less than this part of the first lease, the maximum TTL is near: log in again."""

REFUSED_LOGIN_SECONDS = 10.0
"""A token that is younger than this was not revoked or widened since: a 403 is then the policy's word."""

_TOKEN = re.compile(r"[!-~]+")
"""What may stand in the header that carries it."""

_REFUSALS = {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}


class LoginMetrics(Protocol):
    """What the login tells about itself."""

    def vault_login(self, outcome: str) -> None:
        """Count a login (``login``), a renewal (``renewal``), or a failure by its reason."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A token of Vault's. Times are monotonic, in seconds; ``seconds`` is infinite where it never expires."""

    token: Sensitive
    since: float
    seconds: float
    first_seconds: float
    renewable: bool
    logged_in: float

    def due(self, now: float) -> bool:
        """Tell whether it is time to renew."""
        return now >= self.since + self.seconds * RENEW_AT

    def alive(self, now: float) -> bool:
        """Tell whether Vault still knows the token."""
        return now < self.since + self.seconds


class VaultLogin:
    """Makes calls with a current token. Logging in and renewing happen on the way, once for all who wait.

    ``token_file`` holds a service account's token for Vault's audience alone; it is read at each login, because
    the kubelet replaces it.
    """

    def __init__(
        self,
        transport: VaultTransport,
        *,
        mount: str,
        role: str,
        token_file: Path,
        clock: Clock,
        metrics: LoginMetrics,
    ) -> None:
        self._transport = transport
        self._mount = mount
        self._role = role
        self._token_file = token_file
        self._clock = clock
        self._metrics = metrics
        self._lease: Lease | None = None
        self._refreshing: asyncio.Task[Lease] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        """Make a call with a current token; a refused one is made once more after a new login.

        Vault says 403 to a token that it no longer knows as to one that may not. Raises BrokerError: vault_denied,
        vault_write_conflict, vault_unavailable.
        """
        lease = await self._current()
        answer = await self._transport.call(method, path, body, token=lease.token)
        if answer.status == HTTPStatus.FORBIDDEN and self._may_be_outdated(lease):
            lease = await self._current()
            answer = await self._transport.call(method, path, body, token=lease.token)
        return checked(answer)

    def _may_be_outdated(self, refused: Lease) -> bool:
        """Drop a token that was refused, unless it is fresh; tell whether there is, or will be, another one."""
        if self._clock.monotonic() - refused.logged_in < REFUSED_LOGIN_SECONDS:
            return False
        if self._lease is not None and self._lease.token is refused.token:
            self._lease = None
        return True

    async def _current(self) -> Lease:
        lease = self._lease
        if lease is not None and not lease.due(self._clock.monotonic()):
            return lease
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(lease), name="vault-login")
            self._refreshing.add_done_callback(self._refreshed)
        # A caller that gives up must not take the login away from the others.
        return await asyncio.shield(self._refreshing)

    def _refreshed(self, task: asyncio.Task[Lease]) -> None:
        self._refreshing = None
        if not task.cancelled() and task.exception() is None:
            self._lease = task.result()

    async def _refresh(self, lease: Lease | None) -> Lease:
        try:
            renewed = await self._renewed(lease) if lease is not None else None
            outcome = "renewal" if renewed is not None else "login"
            current = renewed or await self._log_in()
        except BrokerError as error:
            self._metrics.vault_login(str(error.reason))
            raise
        self._metrics.vault_login(outcome)
        return current

    async def _renewed(self, lease: Lease) -> Lease | None:
        """Return the token with a longer lease, or None where a new login has to be made."""
        now = self._clock.monotonic()
        if not lease.renewable or not lease.alive(now):
            return None
        api = Token(ApiAdapter(partial(self._transport.call, token=lease.token)))
        answer: Answer = await api.renew_self()  # type: ignore[no-untyped-call]
        if answer.status in _REFUSALS:
            return None
        renewed = _lease(checked(answer), now)
        if renewed.seconds < lease.first_seconds * WORTH_RENEWING:
            return None
        return replace(lease, since=now, seconds=renewed.seconds, renewable=renewed.renewable)

    async def _log_in(self) -> Lease:
        now = self._clock.monotonic()
        api = Kubernetes(ApiAdapter(self._transport.call))
        answer: Answer = await api.login(self._role, self._read_token(), use_token=False, mount_point=self._mount)
        if answer.status in _REFUSALS:
            raise self._login_refused(answer.status)
        return _lease(checked(answer), now)

    def _read_token(self) -> str:
        try:
            return self._token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise unavailable(
                f"The token for logging in to Vault cannot be read from {self._token_file} "
                f"({type(error).__name__}): mount a projected service account token with Vault's audience there."
            ) from None

    def _login_refused(self, status: int) -> BrokerError:
        return denied(
            f"Vault refused the login as role {self._role} at auth/{self._mount} ({status}): check the role's "
            "bound_service_account_names, bound_service_account_namespaces and audience against the token in "
            f"{self._token_file}, and that Vault may make TokenReviews (deploy/vault/README.md)."
        )


def _lease(answer: Answer, since: float) -> Lease:
    auth = answer.body.get("auth")
    try:
        token, seconds, renewable = auth["client_token"], float(auth["lease_duration"]), bool(auth["renewable"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        raise unavailable("Vault's answer to a login is not complete: check vault.address.") from None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise unavailable("Vault's answer to a login holds no token: check vault.address.")
    lasts = seconds or float("inf")  # Vault writes 0 for a token without an end
    return Lease(Sensitive(token), since, lasts, lasts, renewable, since)

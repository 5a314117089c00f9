"""What the broker's own objects and errors show when somebody prints them, with real tokens inside."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from broker.app import broker as whole_broker
from broker.clock import SystemClock
from broker.config import ConfigError, load
from broker.errors import BrokerError
from broker.http.tokens import parse
from broker.identity import secret
from broker.identity.bearer import Bearers
from broker.kube.answer import Answer
from broker.kube.token_requests import TokenRequests
from broker.metrics.counted import Metrics
from broker.model.cluster import ClusterInfo
from broker.model.decision import Allowed
from broker.model.limits import NamespaceLimits
from broker.model.proof import SecretProof
from broker.model.proof_policy import ProofPolicy
from broker.model.sensitive import Sensitive
from broker.model.token import Anchor
from broker.model.vault_secret import vault_secret
from broker.ports import Registration
from broker.services.authenticate import Authenticator, Checks
from broker.services.failure_limit import FailureLimit
from broker.services.mint import Issued
from tests.support.broker import CONFIG, BrokerProcess, Tenant
from tests.support.inside import Inside, login_of, session_of
from tests.support.lab import Lab
from tests.support.leaks import Output, Search
from tests.support.outputs import sought
from tests.support.prints import printed, printed_error
from tests.support.processes import free_port
from tests.support.rotation import FakeRegistry


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def inside(broker: BrokerProcess, installed: Lab) -> AsyncIterator[Inside]:
    """Make the parts of a broker, once for all tests here."""
    tenant = await Tenant.create(installed.cluster, "prints")
    async with Inside.of(broker, tenant) as parts:
        yield parts


@pytest.fixture
def search(inside: Inside, installed: Lab, client_secrets: list[str]) -> Search:
    """Return the search for everything that is secret by now, those of the parts among it."""
    values = sought(installed, client_secrets)
    token = inside.config.kubernetes.token_file.read_text()
    return Search({**values, "inside": [inside.token.value.reveal(), inside.registered.secret, token]})


async def objects(inside: Inside) -> dict[str, object]:
    """Return what a broker has in its hands."""
    info = ClusterInfo("lab", inside.config.cluster.server, "CA")
    grant = inside.client.grants[0]
    renewed = await inside.login.call("POST", "/v1/auth/token/renew-self", {})
    async with whole_broker(inside.config) as parts:
        return {
            "configuration": inside.config,
            "broker": parts,
            "client": inside.client,
            "session": inside.session,
            "pool": inside.session._pool,
            "connections": inside.session._pool._all,
            "request for a token": inside.spec,
            "token": inside.token,
            "value": inside.token.value,
            "issued": Issued(
                inside.token.jti,
                inside.token,
                Allowed(grant, inside.spec.audience, 600),
                inside.spec.namespace,
                inside.spec.subject,
            ),
            "answer of Kubernetes": inside.answer,
            "copy for Vault": vault_secret(info, inside.spec.namespace, grant.service_account, inside.token),
            "transport": inside.transport,
            "login": inside.login,
            "lease": inside.login._lease,
            "store": inside.store,
            "answer of Vault": renewed,
        }


async def test_objects_print_nothing_secret(inside: Inside, search: Search) -> None:
    """However they are printed, by Python, by pytest or by the log, alone or inside of others."""
    shown = [Output(name, printed(value)) for name, value in (await objects(inside)).items()]

    assert search.leaks(shown) == []
    assert "***" in next(output.text for output in shown if output.source == "token")


async def test_values_were_there_to_be_printed(inside: Inside, search: Search) -> None:
    """The search finds what the objects hide, once it is taken out of them."""
    found = await objects(inside)
    lease = inside.login._lease
    assert lease is not None
    taken_out = [inside.answer.body.decode(), inside.token.value.reveal(), lease.token.reveal()]
    taken_out += [str(found["answer of Vault"].body), inside.session.token]  # type: ignore[attr-defined]

    for number, text in enumerate(taken_out):
        assert search.leaks([Output(f"plain {number}", text)])


@dataclass(frozen=True, slots=True)
class Saying:
    """Stands where a session would, and answers what it is told."""

    answer: Answer

    async def call(self, *_: object, **__: object) -> Answer:
        """Answer."""
        return self.answer


async def mint(inside: Inside, answer: Answer | None = None, **changes: Any) -> object:
    """Ask for another token than the grant's, or get another answer."""
    session = inside.session if answer is None else Saying(answer)
    return await TokenRequests(session, Metrics()).mint(replace(inside.spec, **changes))


async def call_kubernetes(inside: Inside, **changes: Any) -> None:
    """Make a call with a session that is not as it should be."""
    async with session_of(inside.config, **changes) as session:
        await session.call("GET", "/version")


async def call_vault(inside: Inside, **changes: Any) -> None:
    """Make a call with a login that is not as it should be."""
    async with login_of(inside.vault, **changes) as (_, login):
        await login.call("GET", "/v1/secret/metadata/tokenbroker/a", None)


async def write(inside: Inside, path: tuple[str, ...], cas: int) -> None:
    """Write the token into Vault, where it does not belong."""
    await inside.store.write(path, {"token": inside.token.value}, cas)


async def authenticate(inside: Inside, name: str, proof: str) -> None:
    """Prove to be a client, wrongly."""
    registry = FakeRegistry()
    registry.known[inside.client.id] = Registration(inside.client.id, "", 1, inside.client, None, {})
    clock = SystemClock()
    checks = Checks(secret, Bearers([], None, clock), None, ProofPolicy())
    authenticator = Authenticator(
        registry=registry,
        checks=checks,
        limit=FailureLimit(clock),
        metrics=Metrics(),
        clock=clock,
        limits=lambda _namespace: NamespaceLimits(),
        near_miss=lambda _client, _failure: None,
    )
    await authenticator.authenticate(SecretProof(name, Sensitive(proof)), "192.0.2.1")


async def read_body(inside: Inside, field: str) -> None:
    """Read a request that has a secret in the wrong place."""
    parse({field: inside.registered.secret}, inside.client)


async def read_token_file(inside: Inside, folder: Path, more: str) -> None:
    """Open a session with a token file that holds something else, too."""
    (folder / "token").write_text(inside.session.token + more)
    await call_kubernetes(inside, token_file=folder / "token")


def away() -> str:
    """Return the address of nobody."""
    return f"https://127.0.0.1:{free_port()}"


ATTEMPTS: dict[str, Callable[[Inside], Awaitable[object]]] = {
    "nobody's account": lambda inside: mint(inside, service_account="nobody"),
    "anchor that is gone": lambda inside: mint(inside, anchor=Anchor("tokenbroker-anchor-x", "gone")),
    "life that is refused": lambda inside: mint(inside, ttl_seconds=1),
    "answer that is cut short": lambda inside: mint(inside, Answer(201, inside.answer.body[:-40])),
    "answer for another account": lambda inside: mint(inside, inside.answer, service_account="other"),
    "failure that repeats the token": lambda inside: mint(inside, Answer(500, inside.answer.body)),
    "API server that is away": lambda inside: call_kubernetes(inside, server=away()),
    "API server that is slow": lambda inside: call_kubernetes(inside, timeout_seconds=1e-9),
    "API server of another authority": lambda inside: call_kubernetes(inside, ca_file=inside.vault.ca_file),
    "Vault that is away": lambda inside: call_vault(inside, address=away()),
    "Vault that is slow": lambda inside: call_vault(inside, timeout_seconds=1e-9),
    "Vault of another authority": lambda inside: call_vault(inside, ca_file=inside.config.cluster.ca_file),
    "Vault that is the API server": lambda inside: call_vault(
        inside, address=inside.config.cluster.server, ca_file=inside.config.cluster.ca_file
    ),
    "login that is refused": lambda inside: call_vault(inside, auth_role="other"),
    "login with the wrong token": lambda inside: call_vault(inside, token_file=inside.config.kubernetes.token_file),
    "write that came too late": lambda inside: write(inside, ("tokenbroker", "a"), 99),
    "write where it may not": lambda inside: write(inside, ("elsewhere",), 0),
    "secret of nobody": lambda inside: authenticate(inside, "no/body", inside.registered.secret),
    "secret that is wrong": lambda inside: authenticate(inside, str(inside.client.id), inside.registered.secret[:-1]),
    "secret as a name": lambda inside: authenticate(inside, inside.registered.secret, inside.registered.secret),
    "secret as a field's name": lambda inside: read_body(inside, inside.registered.secret),
    "secret as a client": lambda inside: read_body(inside, "client"),
    "secret as a delivery": lambda inside: read_body(inside, "deliver"),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
async def test_failures_print_nothing_secret(
    attempt: str, inside: Inside, search: Search, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the error, its trace and its attributes, nor what was logged on the way, even by libraries at debug."""
    caplog.set_level("DEBUG")
    with pytest.raises(BrokerError) as caught:
        await ATTEMPTS[attempt](inside)

    said = "".join(capfd.readouterr())
    assert search.leaks([Output("error", printed_error(caught.value)), Output("log", caplog.text + said)]) == []


@pytest.mark.parametrize("more", ["\nmore", " more", "\u00e4"])
async def test_token_file_that_is_not_one_token_is_not_quoted(
    inside: Inside, search: Search, tmp_path: Path, more: str
) -> None:
    """A file that was written by hand may hold more than a token: the error has neither."""
    with pytest.raises(OSError, match="does not hold one token") as caught:
        await read_token_file(inside, tmp_path, more)

    assert search.leaks([Output("error", printed_error(caught.value))]) == []


def test_configuration_with_a_token_in_the_wrong_place_is_not_quoted(
    inside: Inside, broker: BrokerProcess, search: Search, tmp_path: Path
) -> None:
    """Where somebody writes a token instead of the file's name, the error names the key alone."""
    config = yaml.safe_load((broker.folder / CONFIG).read_text())
    for section in [value for value in config.values() if isinstance(value, dict)]:
        section.update(dict.fromkeys(section, inside.session.token))
    (tmp_path / CONFIG).write_text(yaml.safe_dump({**config, "log_level": inside.session.token}))

    with pytest.raises(ConfigError, match=r"kubernetes\.token_file") as caught:
        load(tmp_path / CONFIG)

    assert search.leaks([Output("error", printed_error(caught.value))]) == []

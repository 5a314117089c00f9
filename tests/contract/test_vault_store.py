"""The store of tokens in Vault: the same promises from the fake and from a real OpenBao under the broker's policy."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from broker.errors import BrokerError, Reason
from broker.model.client import ClientId
from broker.model.sensitive import Sensitive
from broker.model.stored_copy import CopyLabel, RetiredAnchor
from broker.model.token import Anchor
from broker.ports import VaultStore
from broker.vault.answer import Answer, checked
from broker.vault.store import KvStore
from broker.vault.transport import VaultTransport
from tests.support.fake_vault import FakeVault
from tests.support.openbao import SETUP, OpenBao
from tests.support.rotation import HandClock

Path = tuple[str, ...]
DATA: dict[str, Sensitive | str] = {"token": Sensitive("the-token"), "namespace": "null"}
MOMENT = datetime(2026, 11, 24, 12, tzinfo=UTC)
ANCHOR = "tokenbroker-anchor-mfrggzdfmztwq2lknnwg23tp"
LABEL = CopyLabel(
    client_uid="uid",
    client=ClientId("shop", "reporter"),
    grant="default",
    server="https://api.example",
    service_account="reporter",
    audience="https://kubernetes.default.svc",
    ttl_seconds=43200,
    version=1,
    issued_at=MOMENT,
    expires_at=MOMENT + timedelta(hours=12),
    jti="jti",
    anchor=Anchor(ANCHOR, "anchor-uid"),
)


@dataclass
class Subject:
    """A store, and what strangers and users do behind its back."""

    store: VaultStore
    stranger_writes: Callable[[Path], Awaitable[None]]
    delete_current: Callable[[Path], Awaitable[None]]
    destroy_current: Callable[[Path], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def openbao() -> AsyncIterator[OpenBao]:
    """Run an OpenBao with a KV engine and the broker's policy."""
    async with OpenBao.start() as server:
        await server.api("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        await server.api("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
        policy = (SETUP / "policy.hcl").read_text()
        await server.api("POST", "sys/policies/acl/tokenbroker", {"policy": policy})
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def send(openbao: OpenBao) -> AsyncIterator[Callable[..., Awaitable[Answer]]]:
    """Make calls as the broker does, with a token that has its policy and no other."""
    _, made = await openbao.api("POST", "auth/token/create", {"policies": ["tokenbroker"], "no_default_policy": True})
    token = Sensitive(made["auth"]["client_token"])
    async with VaultTransport(openbao.address, openbao.ca_file, 10) as transport:

        async def call(method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
            return checked(await transport.call(method, path, body, token=token))

        yield call


@pytest.fixture(params=["fake", "openbao"])
def subject(request: pytest.FixtureRequest) -> Subject:
    """Return the fake, or the adapter in front of the real thing."""
    return fake() if request.param == "fake" else real(request)


@pytest.fixture
def path(request: pytest.FixtureRequest) -> Path:
    """Return a path of the test's own."""
    return ("tokenbroker", "prod", "shop", request.node.name.replace("/", "_"), "default")


def fake() -> Subject:
    """Return the fake."""
    vault = FakeVault()

    async def stranger_writes(path: Path) -> None:
        vault.stranger_writes(path)

    async def delete(path: Path) -> None:
        vault.delete_current(path)

    return Subject(vault, stranger_writes, delete, delete)


def real(request: pytest.FixtureRequest) -> Subject:
    """Return the adapter, and changes made as root."""
    server: OpenBao = request.getfixturevalue("openbao")
    store = KvStore(request.getfixturevalue("send"), "secret", HandClock(datetime.now(UTC) + timedelta(minutes=1)))

    def encoded(path: Path) -> str:
        return "/".join(quote(segment, safe="") for segment in path)

    async def stranger_writes(path: Path) -> None:
        await server.api("POST", f"secret/data/{encoded(path)}", {"data": {"k": "v"}})

    async def delete(path: Path) -> None:
        await server.api("DELETE", f"secret/data/{encoded(path)}")

    async def destroy(path: Path) -> None:
        copy = await store.inspect(path)
        assert copy is not None
        await server.api("POST", f"secret/destroy/{encoded(path)}", {"versions": [copy.current_version]})

    return Subject(store, stranger_writes, delete, destroy)


async def test_nothing_is_none(subject: Subject, path: Path) -> None:
    """A path without metadata is None, not an error."""
    assert await subject.store.inspect(path) is None


async def test_a_claimed_path_has_a_label_and_no_version(subject: Subject, path: Path) -> None:
    """A label can be there before there is data."""
    await subject.store.label(path, LABEL)

    copy = await subject.store.inspect(path)

    assert copy is not None
    assert (copy.current_version, copy.managed, copy.label, copy.intact) == (0, True, LABEL, False)


async def test_versions_count_up_and_keep_the_label(subject: Subject, path: Path) -> None:
    """Writes return the version they made; the label stays as it was until it is replaced."""
    await subject.store.label(path, LABEL)
    versions = [await subject.store.write(path, DATA, cas=cas) for cas in (0, 1)]

    copy = await subject.store.inspect(path)

    assert versions == [1, 2]
    assert copy is not None
    assert (copy.current_version, copy.label, copy.intact) == (2, LABEL, True)


async def test_a_label_is_replaced_as_a_whole(subject: Subject, path: Path) -> None:
    """What a label says no more is gone from Vault too."""
    retired = RetiredAnchor(Anchor(f"{ANCHOR}-1a2b3c4d-v1", "old-uid"), MOMENT)
    await subject.store.label(path, replace(LABEL, retired=(retired, retired)))
    await subject.store.label(path, replace(LABEL, version=2))

    copy = await subject.store.inspect(path)

    assert copy is not None
    assert copy.label == replace(LABEL, version=2)


@pytest.mark.parametrize("cas", [0, 2])
async def test_a_write_on_another_version_is_a_conflict(subject: Subject, path: Path, cas: int) -> None:
    """Nothing is overwritten unseen, be it a first version or a later one."""
    await subject.store.write(path, DATA, cas=0)

    with pytest.raises(BrokerError) as caught:
        await subject.store.write(path, DATA, cas=cas)

    assert caught.value.reason is Reason.VAULT_WRITE_CONFLICT


async def test_a_strangers_path_is_not_managed(subject: Subject, path: Path) -> None:
    """Data without a label of ours belongs to somebody else."""
    await subject.stranger_writes(path)

    copy = await subject.store.inspect(path)

    assert copy is not None
    assert (copy.current_version, copy.managed, copy.label, copy.intact) == (1, False, None, True)


@pytest.mark.parametrize("how", ["delete_current", "destroy_current"])
async def test_deleted_data_is_not_intact_and_can_be_written_over(subject: Subject, path: Path, how: str) -> None:
    """A soft-deleted or destroyed version still counts for check-and-set."""
    await subject.store.label(path, LABEL)
    await subject.store.write(path, DATA, cas=0)
    await getattr(subject, how)(path)

    deleted = await subject.store.inspect(path)
    version = await subject.store.write(path, DATA, cas=1)
    healed = await subject.store.inspect(path)

    assert deleted is not None
    assert healed is not None
    assert (deleted.current_version, deleted.intact, version, healed.intact) == (1, False, 2, True)


async def test_removal_leaves_nothing_and_may_be_repeated(subject: Subject, path: Path) -> None:
    """Data and metadata go; removing nothing is no error; the next version is the first again."""
    await subject.store.label(path, LABEL)
    await subject.store.write(path, DATA, cas=0)

    await subject.store.remove(path)
    await subject.store.remove(path)

    assert await subject.store.inspect(path) is None
    assert await subject.store.children(path[:-1]) == []
    assert await subject.store.write(path, DATA, cas=0) == 1


@pytest.mark.parametrize("name", ["null", "123", "1e3", "~", "a.b", "%2e%2e", "a b", "\u00e4", "%", "a?b#c", "%2F"])
async def test_names_are_taken_literally(subject: Subject, path: Path, name: str) -> None:
    """Whatever a name looks like, it is one segment, and comes back as it was."""
    strange = (*path, name, "default")
    await subject.store.write(strange, DATA, cas=0)

    assert await subject.store.children(path) == [f"{name}/"]
    assert await subject.store.children((*path, name)) == ["default"]
    copy = await subject.store.inspect(strange)
    assert copy is not None
    assert copy.current_version == 1


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "../../sys"])
async def test_names_that_would_lead_elsewhere_are_refused(
    send: Callable[..., Awaitable[Answer]], path: Path, name: str
) -> None:
    """Vault takes an encoded slash for a slash: such names are not sent at all."""
    store = KvStore(send, "secret", HandClock())

    for call in (store.inspect, store.remove, store.children):
        with pytest.raises(BrokerError, match="cannot be one part of a path"):
            await call((*path, name))
    with pytest.raises(BrokerError, match="cannot be one part of a path"):
        await store.write((*path, name), DATA, cas=0)


async def test_outside_its_prefix_the_policy_refuses(send: Callable[..., Awaitable[Answer]]) -> None:
    """A wrong prefix or mount is a refusal that names the policy."""
    store = KvStore(send, "secret", HandClock())

    with pytest.raises(BrokerError, match=r"policy\.hcl") as caught:
        await store.write(("elsewhere", "a"), DATA, cas=0)

    assert caught.value.reason is Reason.VAULT_DENIED


@pytest.mark.parametrize("mount", ["old", "missing"])
async def test_a_mount_of_another_kind_is_named(openbao: OpenBao, mount: str) -> None:
    """Version 1 of the engine, and none at all, are told apart from a refusal: here the caller may do anything."""
    root = Sensitive(openbao.root_token)
    async with VaultTransport(openbao.address, openbao.ca_file, 10) as transport:

        async def call(method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
            return checked(await transport.call(method, path, body, token=root))

        with pytest.raises(BrokerError, match=r"vault\.mount"):
            await KvStore(call, mount, HandClock()).write(("a",), DATA, cas=0)


async def test_data_that_ends_by_itself_is_intact_until_then(
    openbao: OpenBao, path: Path, request: pytest.FixtureRequest
) -> None:
    """Where users set delete_version_after, the deletion time lies ahead and is not yet one."""
    name = "/".join(quote(segment, safe="") for segment in path)
    store = real(request).store
    await openbao.api("POST", f"secret/metadata/{name}", {"delete_version_after": "1h"})
    await store.write(path, DATA, cas=0)

    copy = await store.inspect(path)

    assert copy is not None
    assert copy.intact


async def test_the_policy_lets_the_broker_find_out_whether_vault_takes_writes(
    send: Callable[..., Awaitable[Answer]],
) -> None:
    """It has its own token renewed, which no standby does by itself."""
    answered: list[str] = []

    async def call(method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        answer: Answer = await send(method, path, body)
        answered.append(f"{answer.status} {path}")
        return answer

    await KvStore(call, "secret", HandClock()).reach_active()

    assert answered == ["200 /v1/auth/token/renew-self"]


async def test_a_token_that_cannot_be_renewed_is_no_outage(openbao: OpenBao) -> None:
    """A Vault that refuses to renew it has answered: what it serves is found out by what is asked next."""
    root = Sensitive(openbao.root_token)
    refused: list[str] = []
    async with VaultTransport(openbao.address, openbao.ca_file, 10) as transport:

        async def call(method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
            answer = await transport.call(method, path, body, token=root)
            refused.append(f"{answer.status} {path}")
            return checked(answer)

        await KvStore(call, "secret", HandClock()).reach_active()

    assert refused == ["400 /v1/auth/token/renew-self"]

"""Which TokenClients stand in files, and whom a broken one serves: nobody."""

import json
from typing import Any

import pytest

from broker.directory.files import Unreadable
from broker.directory.resources import File, merged, read_file, uid_of
from broker.errors import Reason
from broker.model.client import ClientId
from broker.ports import Registration
from tests.support.bad_specs import BAD, GOOD
from tests.support.broker import token_client

WEB, APP = ClientId("shop", "web"), ClientId("shop", "app")
ROLE = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}}


def _client(name: str = "web", **changes: Any) -> dict[str, Any]:
    return token_client("shop", name, **GOOD) | changes


def _file(*documents: Any, name: str = "a.yaml", before: File | None = None) -> File:
    return read_file(name, "\n---\n".join(map(json.dumps, documents)).encode(), "lab", before)


def _one(*files: File) -> Registration:
    [registration] = merged(files, "lab")
    return registration


@pytest.mark.parametrize(
    "documents",
    [
        [_client(), _client("app")],
        [{"apiVersion": "v1", "kind": "List", "items": [_client(), ROLE, _client("app")]}],
        [{"apiVersion": "tokenbroker.dev/v1alpha1", "kind": "TokenClientList", "items": [_client()]}, _client("app")],
        [ROLE, _client(), {"apiVersion": "v1", "kind": "ServiceAccount"}, _client("app")],
    ],
    ids=["documents", "list", "typed list", "among others"],
)
def test_all_clients_of_a_file_are_found(documents: list[Any]) -> None:
    """As kubectl would find them; what else `tokenbroker client add -o yaml` prints may stand beside them."""
    found = merged([_file(*documents)], "lab")

    assert [registration.id for registration in found] == [APP, WEB]
    assert all(registration.client is not None for registration in found)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("text", "a document that is no resource"),
        ({"kind": "TokenClient"}, "a document without apiVersion and kind"),
        ({"apiVersion": "v1"}, "a document without apiVersion and kind"),
        (_client(apiVersion="tokenbroker.dev/v2"), "a document of tokenbroker.dev that is no"),
        (_client(kind="TokenClinet"), "a document of tokenbroker.dev that is no"),
        (_client(metadata=None), "a TokenClient without metadata"),
        (_client(metadata={"name": "web"}), "whose metadata.namespace or metadata.name"),
        (_client(metadata={"namespace": "shop"}), "whose metadata.namespace or metadata.name"),
        (_client(metadata={"namespace": "shop", "name": 1}), "whose metadata.namespace or metadata.name"),
        (_client(metadata={"namespace": "shop", "name": "a/b"}), "whose metadata.namespace or metadata.name"),
        (_client(metadata={"namespace": "Shop", "name": "web"}), "whose metadata.namespace or metadata.name"),
        (_client(metadata={"namespace": "shop", "name": "web", "x": 1}), "metadata that is not known"),
        (_client(metadata={"namespace": "shop", "name": "web", "labels": {"a": 1}}), "metadata that is not known"),
        (_client(metadata={"namespace": "shop", "name": "web", "annotations": []}), None),
        (_client(metadata={"namespace": "shop", "name": "web", "annotations": ["a"]}), "metadata that is not known"),
        (_client(x=1), "shop/web has fields beside metadata, spec and status"),
        ({"apiVersion": "v1", "kind": "List"}, "a list without items"),
        ({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "List"}]}, "a list within a list"),
        ({"apiVersion": "v1", "kind": "List", "items": [1]}, "a document that is no resource"),
    ],
)
def test_document_that_cannot_be_told_spoils_its_file(document: Any, problem: str | None) -> None:
    """Nobody can say what the rest of the file means, then."""
    file = _file(_client("app"), document)

    if problem is None:
        assert file.problem == ""
        return
    assert problem in file.problem
    assert merged([file], "lab") == []


def test_broken_file_serves_none_of_those_that_it_named() -> None:
    """They stay known, so that callers are not told that they do not exist, and their copies in Vault stay."""
    good = _file(_client(), _client("app"))
    broken = read_file("a.yaml", b"a: [", "lab", good)
    worse = read_file("a.yaml", Unreadable("is not a file"), "lab", broken)

    for file in (broken, worse):
        found = merged([file], "lab")
        assert [registration.id for registration in found] == [APP, WEB]
        assert all(registration.client is None for registration in found)
    assert _one(read_file("a.yaml", b"x", "lab", _file(_client()))).fault is not None
    assert broken.problem.endswith("is not YAML")
    assert worse.problem == "is not a file"


def test_spec_that_is_not_valid_spoils_its_client_alone() -> None:
    """As in the cluster, where each is a resource of its own."""
    found = {one.id: one for one in merged([_file(_client(spec=BAD["no grants"]), _client("app"))], "lab")}

    assert found[WEB].client is None
    assert found[APP].client is not None


def test_client_without_a_spec_is_not_valid() -> None:
    """Nothing is not everything."""
    document = _client()
    del document["spec"]

    assert _one(_file(document)).client is None


@pytest.mark.parametrize("places", [("a.yaml", "a.yaml"), ("a.yaml", "b.yaml")])
def test_client_that_is_described_twice_is_not_served(places: tuple[str, str]) -> None:
    """Nobody could say which one counts; the files are named."""
    if places[0] == places[1]:
        files = [_file(_client(), _client())]
    else:
        files = [_file(_client(), name=name) for name in places]
    registration = _one(*files)

    assert registration.client is None
    assert registration.fault is not None
    assert registration.fault.reason is Reason.INVALID_REQUEST
    assert ", ".join(sorted(set(places))) in registration.fault.message


def test_client_of_a_broken_file_is_not_served_from_another_one() -> None:
    """The broken one may describe it still, and say that it is suspended."""
    broken = read_file("a.yaml", b"[", "lab", _file(_client()))

    assert _one(broken, _file(_client(), name="b.yaml")).client is None


def test_client_keeps_its_uid_and_its_generation() -> None:
    """Through restarts and other files; another cluster, name or namespace has another UID."""
    first, again = _one(_file(_client())), _one(_file(_client(metadata={"namespace": "shop", "name": "web"}), name="b"))

    assert (first.uid, first.generation) == (again.uid, again.generation)
    uids = {uid_of(WEB, "lab"), uid_of(APP, "lab"), uid_of(ClientId("web", "shop"), "lab"), uid_of(WEB, "prod")}
    assert len(uids) == 4
    assert first.uid == uid_of(WEB, "lab") == "63f8caff-8e0d-56a8-a3fe-a7b8db5d63f6"


def test_generation_is_that_of_the_words() -> None:
    """A client that is removed and added again with other words is not taken for the one before."""
    one, other = _one(_file(_client())), _one(_file(_client(spec=GOOD | {"owner": "x"})))

    assert one.generation != other.generation
    assert 0 < one.generation < 2**53
    assert _one(_file(_client(status={"observedGeneration": 3}))) == one
    assert _one(read_file("a.yaml", b"[", "lab", _file(_client()))).generation == 0


def test_what_the_api_server_adds_is_left_out() -> None:
    """So a resource that was read from a cluster can be put into a file as it is."""
    exported = {"uid": "u", "generation": 3, "resourceVersion": "7", "creationTimestamp": "x", "managedFields": []}
    metadata = {"namespace": "shop", "name": "web", "labels": {"a": "b"}, "finalizers": ["f"], **exported}

    assert _one(_file(_client(metadata=metadata))) == _one(_file(_client()))

"""The search for leaks finds what it is there for, and nothing else."""

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest

from broker.identity import secret
from tests.support.leaks import PIECE, STRIDE, Output, Search


def encoded(value: str) -> str:
    """Return base64 as URLs have it, without padding."""
    return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")


SECRET = secret.generate().reveal()
JWT = ".".join([encoded('{"alg":"RS256","kid":"k1"}'), encoded('{"sub":"somebody","jti":"1"}'), "c2ln" * 40])
LOGIN = "s.4GryPL6EYNgAQ9kN4RSIpJi6"
DISGUISES: dict[str, Callable[[str], str]] = {
    "plain": "{}".format,
    "in a JSON log": lambda value: json.dumps({"event": f"a\n{value}\n"}),
    "in a header": "Authorization: Bearer {}".format,
    "in a URL": "GET /v1/a/{}?x=y".format,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 of a URL": encoded,
    "HTTP Basic, shift 0": lambda value: base64.b64encode(f"ab:{value}".encode()).decode(),
    "HTTP Basic, shift 1": lambda value: base64.b64encode(f"abc:{value}".encode()).decode(),
    "HTTP Basic, shift 2": lambda value: base64.b64encode(f"abcd:{value}".encode()).decode(),
    "every byte in percent": lambda value: "".join(f"%{ord(character):02X}" for character in value),
    "HTTP Basic in a URL": lambda value: quote(base64.b64encode(f"a:{value}???".encode()).decode(), safe=""),
}
INNOCENT = """
{"level":"info","request_id":"7d5f0e0b4c0c4f8e","path":"/apis/tokenbroker.dev/v1alpha1/namespaces/shop/tokenclients"}
{"jti":"0f3c9a8e-5b8e-4a39-9d1b-5a8b1d0f9a11","token_sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0"}
Secret tokenbroker-anchor-mfrggzdfmztwq2lknnwg23tp of type tokenbroker.dev/anchor, digest sha256:0123456789abcdef0123456
https://kubernetes.default.svc.cluster.local validatingadmissionpolicies.admissionregistration.k8s.io 2026-11-24T12:00Z
"""


def found(text: str, **values: list[str]) -> list[str]:
    """Search a text that stands on the third line of a file."""
    return Search(values).leaks([Output("a.log", f"one\ntwo\nand {text} too\n")])


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("value", [SECRET, JWT, LOGIN], ids=["secret", "jwt", "login"])
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_planted_value_is_found(value: str, disguise: str, *, known: bool) -> None:
    """Whether it was noted or only looks like a token, and however it was encoded."""
    values = {"planted": [value]} if known else {}
    [line] = found(DISGUISES[disguise](value), **values)

    assert line.startswith("a.log, line 3: ")
    assert ("planted" in line) is known
    assert value not in line


@pytest.mark.parametrize("start", range(STRIDE + 1))
def test_part_of_a_known_value_is_found(start: int) -> None:
    """A cut-off token is one, too: wherever the part begins."""
    part = JWT[start : start + PIECE + STRIDE - 1]

    assert found(f"token={part}...", planted=[JWT])


def test_end_of_a_known_value_is_found() -> None:
    """The last characters are as secret as the others."""
    assert found(SECRET[-PIECE:], planted=[SECRET])


def test_innocent_text_is_let_through() -> None:
    """Digests, ids, names and addresses are no tokens."""
    assert not Search({"planted": [SECRET, JWT, LOGIN]}).leaks([Output("a.log", INNOCENT)])


def test_value_too_short_to_look_for_is_refused() -> None:
    """It would be found everywhere, or nowhere."""
    with pytest.raises(ValueError, match="short"):
        Search({"planted": ["x"]})


def place(start: str, **more: str) -> str:
    """Return what the API server gives to go on with a list."""
    said = {"v": "meta.k8s.io/v1", "rv": 4711, "start": start, **more}
    return quote(encoded(json.dumps(said, separators=(",", ":"))), safe="")


@pytest.mark.parametrize("shift", range(3))
def test_place_in_a_list_is_no_part_of_a_token(shift: int) -> None:
    """It names a client in base64, as tokens do: the same letters, where they begin at the same place."""
    namespace = "a-namespace-of-a-very-long-name"
    payload = encoded(json.dumps({"x" * (1 + shift): namespace}))
    uri = f"/apis/tokenbroker.dev/v1alpha1/tokenclients?limit=250&continue={place(f'{namespace}/web')}"

    assert not found(json.dumps({"requestURI": uri}), planted=[f"{payload}.{SECRET}"])


@pytest.mark.parametrize(
    "planted",
    [place(SECRET), place("shop/web", more=JWT), f"{encoded(JWT)}", JWT],
    ids=["as the name", "beside it", "instead", "plain"],
)
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_what_only_looks_like_a_place_in_a_list_is_searched(planted: str, *, known: bool) -> None:
    """Whatever else is in it is not let through."""
    assert found(f"limit=250&continue={planted}", planted=[JWT, SECRET] if known else [])

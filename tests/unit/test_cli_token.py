"""``token get`` and ``token inspect``."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from broker.errors import BrokerError, Limits, Reason
from broker.http.credentials import read_authorization
from broker.http.problems import problem_response
from broker.identity import secret
from broker.model.proof import SecretProof
from tests.support.command import Ended, command

SECRET = secret.generate().reveal()


@dataclass
class Endpoint:
    """Stands where a broker would, keeps what it was asked, and answers as it is told."""

    answer: web.StreamResponse | None = None
    asked: list[tuple[object, Any]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer POST /v1/tokens."""
        self.asked.append((_pair(request), await request.json()))
        return self.answer or web.json_response({"token": "a.b.c", "id": "1"})


def _pair(request: web.Request) -> tuple[str, str]:
    proof = read_authorization(request.headers.getall("Authorization"))
    assert isinstance(proof, SecretProof)
    return proof.client, proof.secret.reveal()


@pytest_asyncio.fixture(loop_scope="session")
async def endpoint() -> AsyncIterator[Endpoint]:
    """Listen on a port of its own."""
    made = Endpoint()
    app = web.Application()
    app.router.add_post("/v1/tokens", made.handle)
    async with TestServer(app) as server:
        made.url = str(server.make_url("")).rstrip("/")
        yield made


async def _get(endpoint: Endpoint, *options: str, **env: str) -> Ended:
    known = {"TOKENBROKER_URL": endpoint.url, "TOKENBROKER_CLIENT": "shop/web", "TOKENBROKER_SECRET": SECRET}
    return await asyncio.to_thread(command, "token", "get", *options, env=known | env)


async def test_get_prints_the_token_alone(endpoint: Endpoint) -> None:
    """What was not said is not asked for; id and secret go as HTTP Basic."""
    ended = await _get(endpoint)

    assert (ended.code, ended.stdout) == (0, "a.b.c\n")
    assert endpoint.asked == [(("shop/web", SECRET), {})]


async def test_get_asks_for_what_was_said(endpoint: Endpoint) -> None:
    """Grant, TTL and audience are passed on; -o json prints the whole answer."""
    ended = await _get(endpoint, "--grant", "ci", "--ttl", "30m", "--audience", "vault", "-o", "json")

    assert endpoint.asked[0][1] == {"grant": "ci", "ttl": "30m", "audience": "vault"}
    assert json.loads(ended.stdout) == {"token": "a.b.c", "id": "1"}


async def test_secret_file_may_end_in_a_newline(endpoint: Endpoint, tmp_path: Path) -> None:
    """A file that an editor or a Kubernetes Secret made is read as it is meant."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    ended = await _get(endpoint, "--secret-file", str(tmp_path / "secret"), TOKENBROKER_SECRET="")

    assert ended.code == 0, ended.stderr
    assert endpoint.asked[0][0] == ("shop/web", SECRET)


@pytest.mark.parametrize("written", ["yaml", "json"])
async def test_credentials_file_holds_everything(endpoint: Endpoint, tmp_path: Path, written: str) -> None:
    """One file is enough, and what is said on the command line wins over it."""
    (tmp_path / "secret").write_text(SECRET)
    fields = {"url": endpoint.url, "client": "shop/web", "secret_file": "secret"}
    text = json.dumps(fields) if written == "json" else "\n".join(f"{key}: {text}" for key, text in fields.items())
    (tmp_path / "credentials").write_text(text)
    arguments = ("token", "get", "--credentials", str(tmp_path / "credentials"))
    plain = await asyncio.to_thread(command, *arguments)
    other = await asyncio.to_thread(command, *arguments, "--client", "shop/other")

    assert (plain.code, other.code) == (0, 0), plain.stderr
    assert [proof for proof, _ in endpoint.asked] == [("shop/web", SECRET), ("shop/other", SECRET)]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (BrokerError(Reason.INVALID_CLIENT, "Who?"), 3, "Who? (code invalid_client, request r1)"),
        (BrokerError(Reason.CLIENT_SUSPENDED, "No."), 1, "No. (code client_suspended, request r1)"),
        (BrokerError(Reason.KUBERNETES_UNAVAILABLE, "Later.", retry_after=7), 4, "Later. Try again in 7 s. (code"),
        (
            BrokerError(Reason.TTL_OUT_OF_RANGE, "Too long.", limits=Limits(600, 5400, ("a", "b"))),
            1,
            "Too long. TTLs from 10m to 1h30m are allowed. Audiences: a, b. (code ttl_out_of_range, request r1)",
        ),
    ],
)
async def test_refusals_are_one_sentence_and_an_exit_code(
    endpoint: Endpoint, error: BrokerError, code: int, words: str
) -> None:
    """Problem documents are told, with the code to look up and the request to quote."""
    endpoint.answer = problem_response(error, "r1")
    ended = await _get(endpoint)

    assert ended.code == code
    assert words in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda: web.Response(text="<html>welcome</html>"), 1),
        (lambda: web.Response(status=502, text="bad gateway"), 4),
        (lambda: web.json_response({"hello": "world"}), 1),
        (lambda: web.Response(status=307, headers={"Location": "/v1/tokens"}), 1),
    ],
)
async def test_what_is_no_broker_is_said_so(endpoint: Endpoint, answer: Any, code: int) -> None:
    """A wrong URL or a proxy's error page is told from a refusal, and no redirect is followed."""
    endpoint.answer = answer()
    ended = await _get(endpoint)

    assert ended.code == code
    assert "is not a token broker" in ended.stderr
    assert len(endpoint.asked) == 1


async def test_proxies_of_the_environment_are_not_used(endpoint: Endpoint) -> None:
    """The secret goes to the host that was named, whatever HTTP_PROXY says."""
    ended = await _get(endpoint, HTTP_PROXY="http://127.0.0.1:1", http_proxy="http://127.0.0.1:1")

    assert ended.code == 0, ended.stderr


def test_broker_that_is_away_exits_with_4() -> None:
    """Nobody listens: try later."""
    env = {"TOKENBROKER_URL": "http://127.0.0.1:1", "TOKENBROKER_CLIENT": "a/b", "TOKENBROKER_SECRET": SECRET}
    ended = command("token", "get", env=env)

    assert ended.code == 4
    assert "cannot be reached" in ended.stderr


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"TOKENBROKER_URL": ""}, "which broker?"),
        ({"TOKENBROKER_URL": "ftp://x"}, "is not one such as https"),
        ({"TOKENBROKER_URL": "https://u:p@x"}, "is not one such as https"),
        ({"TOKENBROKER_URL": "http://broker.example.com"}, "is not https"),
        ({"TOKENBROKER_CLIENT": ""}, "as which client?"),
        ({"TOKENBROKER_CLIENT": "web"}, "is not a client's id"),
        ({"TOKENBROKER_SECRET": ""}, "no secret"),
        ({"TOKENBROKER_SECRET": SECRET[:-1]}, "is not a secret that tokenbroker made"),
        ({"TOKENBROKER_SECRET_FILE": "/nowhere"}, "cannot be read"),
    ],
)
def test_wrong_credentials_are_noticed_before_anybody_is_asked(env: dict[str, str], words: str) -> None:
    """Exit code 2, and the secret is in no message."""
    known = {"TOKENBROKER_URL": "https://x", "TOKENBROKER_CLIENT": "a/b", "TOKENBROKER_SECRET": SECRET}
    ended = command("token", "get", env=known | env)

    assert ended.code == 2
    assert words in ended.stderr
    assert SECRET[:20] not in ended.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "not a mapping"),
        ("{url: 1}", "not a mapping"),
        ("secret: tbs_x\npassword: y", "unknown fields"),
        ("secret: a\nsecret_file: b", "one is enough"),
        ("jwt_file: a\nsecret_file: b", "one is enough"),
        ("secret: [unfinished", "neither JSON nor YAML"),
    ],
)
def test_wrong_credentials_file_is_not_quoted(tmp_path: Path, text: str, words: str) -> None:
    """What is wrong with the file is said without showing it."""
    (tmp_path / "file").write_text(text)
    ended = command("token", "get", "--credentials", str(tmp_path / "file"))

    assert ended.code == 2
    assert words in ended.stderr
    assert "unfinished" not in ended.stderr


def _jwt(claims: Any, header: Any = None) -> str:
    parts = [header or {"alg": "RS256", "kid": "k1"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


CLAIMS = {
    "sub": "system:serviceaccount:shop:web",
    "iss": "https://kubernetes.default.svc",
    "aud": ["vault", "other"],
    "iat": 1,
    "exp": 601,
    "jti": "j1",
    "kubernetes.io": {"namespace": "shop", "secret": {"name": "tokenbroker-anchor-x", "uid": "u1"}},
}


def test_inspect_shows_what_a_token_says() -> None:
    """Whose, what for, until when, bound to what; and that nothing was verified."""
    ended = command("token", "inspect", stdin=_jwt(CLAIMS) + "\n")

    assert ended.code == 0
    assert ended.stdout.splitlines()[0].startswith("signature not verified")
    for words in (
        "Subject:    system:serviceaccount:shop:web",
        "Audiences:  vault, other",
        "Expires:    1970-01-01 00:10:01 UTC (",
        " ago)",
        "Id (jti):   j1",
        "Bound to:   secret tokenbroker-anchor-x (uid u1)",
    ):
        assert words in ended.stdout


def test_inspect_reads_files_and_prints_json(tmp_path: Path) -> None:
    """Programs get all claims, and the word that they are not verified."""
    (tmp_path / "token").write_text(_jwt(CLAIMS))
    ended = command("token", "inspect", str(tmp_path / "token"), "-o", "json")
    document = json.loads(ended.stdout)

    assert document["verified"] is False
    assert document["claims"] == CLAIMS
    assert document["header"]["kid"] == "k1"


def test_inspect_takes_no_token_as_an_argument() -> None:
    """It would stand in process lists and histories; the refusal does not repeat it."""
    token = _jwt(CLAIMS)
    ended = command("token", "inspect", token)

    assert ended.code == 2
    assert "histories" in ended.stderr
    assert token[:30] not in ended.stderr


@pytest.mark.parametrize("text", ["", "abc", "a.b.c", "eyJ.eyJ.x", "....", _jwt([1]), _jwt(CLAIMS, [1]), "é.é.é"])
def test_inspect_refuses_what_is_no_jwt(text: str) -> None:
    """Garbage is told from a token, without a stack trace and without quoting it."""
    ended = command("token", "inspect", stdin=text)

    assert ended.code == 1
    assert "not a JWT" in ended.stderr


@pytest.mark.parametrize("wrong", ["soon", 1e300, None, [], True])
def test_inspect_bears_strange_times(wrong: Any) -> None:
    """Claims may be anything: nobody has verified them."""
    ended = command("token", "inspect", stdin=_jwt({"exp": wrong, "sub": "x\x1b[2J", "kubernetes.io": "?"}))

    assert ended.code == 0
    assert "\x1b" not in ended.stdout

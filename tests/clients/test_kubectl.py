"""kubectl with a kubeconfig that fetches its own tokens, as docs/connect/kubectl.md says."""

import asyncio
import json
import os
import re
import shlex
import shutil
import stat
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from broker.kube.token_requests import unverified_claims
from tests.support.broker import BrokerProcess, Tenant
from tests.support.certificates import Authority
from tests.support.command import Ended, command_with
from tests.support.federated import FORM, Federated
from tests.support.kubectl import Kubectl, KubectlError
from tests.support.lab import Lab
from tests.support.pages import blocks, moved
from tests.support.processes import free_port

PAGE = "connect/kubectl.md"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]


@dataclass
class Desk:
    """A folder with what the page makes, and the environment that it sets."""

    lab: Lab
    broker: BrokerProcess
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    async def sh(self, script: str, shell: str = "sh", **environment: str) -> Ended:
        """Run lines of shell in the folder."""
        process = await asyncio.create_subprocess_exec(
            *(shell, "-euc", script),
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **environment},
            stdout=PIPE,
            stderr=PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 60)
        return Ended(process.returncode or 0, output.decode(), errors.decode())

    async def credential(self, shell: str = "sh", **environment: str) -> Ended:
        """Run the kubeconfig's program, as kubectl runs it."""
        program = self.user()["exec"]
        assert program["command"] == "sh"
        process = await asyncio.create_subprocess_exec(
            *(shell, *program["args"]),
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environment, **environment},
            stdout=PIPE,
            stderr=PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 90)
        return Ended(process.returncode or 0, output.decode(), errors.decode())

    def user(self) -> dict[str, Any]:
        """Return the kubeconfig's only user."""
        config = yaml.safe_load((self.folder / "deployer.kubeconfig").read_text())
        user: dict[str, Any] = config["users"][0]["user"]
        return user

    @property
    def cache(self) -> Path:
        """The only file in the folder of kept tokens."""
        (file,) = (self.folder / ".cache" / "tokenbroker").iterdir()
        return file

    def kept(self) -> dict[str, Any]:
        """Return the ExecCredential that is kept."""
        document: dict[str, Any] = json.loads(self.cache.read_text().splitlines()[1])
        return document

    def keep(self, **status: str) -> None:
        """Change what is kept, as time or somebody with an editor would."""
        first, second = self.cache.read_text().splitlines()
        document = json.loads(second)
        document["status"] |= status
        self.cache.write_text(f"{first}\n{json.dumps(document)}\n")

    def forget(self) -> None:
        """Start without a kept token."""
        shutil.rmtree(self.folder / ".cache", ignore_errors=True)

    async def issued(self) -> int:
        """Return how many tokens the broker has handed to the client."""
        lines = self.broker.audit_file.read_text().splitlines()
        return sum(record["event"] == "token.issued" for record in map(json.loads, lines))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page(installed: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """Do what the page says, up to the kubeconfig."""
    folder = tmp_path_factory.mktemp("kubectl")
    authority = Authority.create(folder, "broker-ca")
    files = authority.server("broker")
    authority.file.rename(folder / "broker-ca.crt")
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    tls = {"cert_file": str(files.certificate), "key_file": str(files.key)}
    listen = {"port": port, "tls": tls, "public_url": url}
    add, fetch, use = blocks(PAGE, "sh")
    tenant = await Tenant.create(installed.cluster, "shop")
    async with BrokerProcess.start(installed, "for-kubectl", listen=listen) as broker:
        words = shlex.split(add.replace("\\\n", " "))[1:]
        words = [str(folder / word) if word.endswith(".secret") else word for word in words]
        added = await command_with(installed.cluster.kubeconfig, *words)
        assert added.code == 0, added.stderr
        await tenant.until_reason("deployer", "Ready")
        desk = Desk(installed, broker, folder)
        fetched = await desk.sh(moved(fetch, {"https://broker.example:8443": url}))
        assert fetched.code == 0, fetched.stderr
        exports = await desk.sh("".join(use.splitlines(keepends=True)[:-1]) + "env")
        desk.environment = dict(re.findall(r"^((?:TOKENBROKER_|KUBECONFIG)\w*)=(.*)$", exports.stdout, re.MULTILINE))
        assert use.splitlines()[-1] == "kubectl get pods"
        yield desk


@pytest.fixture
def desk(page: Desk) -> Desk:
    """Return the folder without a kept token."""
    page.forget()
    return page


@pytest.fixture
def kubectl(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    """Return kubectl in the environment that the page sets."""
    for name, value in (desk.environment | {"HOME": str(desk.folder)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return desk.lab.cluster.kubectl.with_kubeconfig(Path(desk.environment["KUBECONFIG"]))


def test_nothing_in_the_kubeconfig_is_worth_stealing(desk: Desk) -> None:
    """Neither a token nor the secret."""
    text = (desk.folder / "deployer.kubeconfig").read_text()

    assert set(desk.user()) == {"exec"}
    assert "eyJ" not in text
    assert (desk.folder / "deployer.secret").read_text() not in text


async def test_kubectl_gets_what_the_account_may_and_nothing_else(desk: Desk, kubectl: Kubectl) -> None:
    """The page's last line; and the API server's refusal for what the account may not."""
    issued = await desk.issued()
    await kubectl("get", "pods")
    await kubectl("get", "pods")
    with pytest.raises(KubectlError, match=r"Forbidden.*system:serviceaccount:shop:deployer"):
        await kubectl("get", "secrets")

    assert await desk.issued() == issued + 1
    assert stat.S_IMODE(desk.cache.stat().st_mode) == 0o600
    assert stat.S_IMODE(desk.cache.parent.stat().st_mode) == 0o700


async def test_a_token_that_expired_in_between_is_fetched_again(desk: Desk, kubectl: Kubectl) -> None:
    """The kept one is past its time: kubectl notices nothing."""
    await kubectl("get", "pods")
    old = desk.kept()["status"]["token"]
    desk.keep(expirationTimestamp="2026-01-01T00:00:00Z", token="not.a.token")
    await kubectl("get", "pods")

    assert desk.kept()["status"]["token"] not in {old, "not.a.token"}


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_kept_token_is_printed_without_a_call(desk: Desk, shell: str) -> None:
    """In each shell; the broker is not asked, not even for its certificate."""
    first = await desk.credential(shell)
    second = await desk.credential(shell, TOKENBROKER_CA_FILE="/nonexistent", TOKENBROKER_SECRET_FILE="/nonexistent")

    assert (first.code, second.code, second.stderr) == (0, 0, ""), first.stderr + second.stderr
    assert first.stdout == second.stdout
    assert json.loads(first.stdout)["kind"] == "ExecCredential"


@pytest.mark.parametrize(("seconds", "calls"), [(30, 1), (90, 0)])
async def test_the_last_minute_is_not_used(desk: Desk, seconds: int, calls: int) -> None:
    """What ends within a minute is replaced ahead, so that a request in flight does not meet the end."""
    await desk.credential()
    desk.keep(expirationTimestamp=await in_seconds(desk, seconds))
    issued = await desk.issued()
    assert (await desk.credential()).code == 0

    assert await desk.issued() == issued + calls


async def in_seconds(desk: Desk, seconds: int) -> str:
    """Return a time to come as the program reads it."""
    return (await desk.sh(f"date -u -d '+{seconds} seconds' +%Y-%m-%dT%H:%M:%SZ")).stdout.strip()


async def test_the_last_minute_is_used_while_the_broker_is_away(desk: Desk) -> None:
    """Better a token with half a minute than none."""
    await desk.credential()
    desk.keep(expirationTimestamp=await in_seconds(desk, 30))
    kept = desk.kept()
    away = await desk.credential(TOKENBROKER_CA_FILE="/nonexistent")
    desk.keep(expirationTimestamp=await in_seconds(desk, -1))
    over = await desk.credential(TOKENBROKER_CA_FILE="/nonexistent")

    assert (away.code, json.loads(away.stdout)) == (0, kept)
    assert (over.code, over.stdout) == (1, "")
    assert "cannot serve at the moment" in over.stderr


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_refusal_is_told_in_the_brokers_words(desk: Desk, shell: str) -> None:
    """On stderr, with nothing on stdout that kubectl could take for a token."""
    wrong = await desk.credential(shell, TOKENBROKER_SECRET_FILE="", TOKENBROKER_SECRET="tbs_wrong")
    strange = await desk.credential(shell, TOKENBROKER_SECRET_FILE="", TOKENBROKER_SECRET='x"\nurl = "http://evil')
    nothing = await desk.credential(shell, TOKENBROKER_SECRET_FILE="")
    gone = await desk.credential(shell, TOKENBROKER_SECRET_FILE="/nonexistent")

    assert [one.code for one in (wrong, strange, nothing, gone)] == [1] * 4
    assert [one.stdout for one in (wrong, strange, nothing, gone)] == [""] * 4
    assert "answered 401: The client could not be authenticated." in wrong.stderr
    assert "something else than a secret" in strange.stderr
    assert "set TOKENBROKER_SECRET_FILE or TOKENBROKER_JWT_FILE" in nothing.stderr
    assert "the secret file cannot be read" in gone.stderr


async def test_two_at_once(desk: Desk) -> None:
    """Both get a token, and one of them is kept whole."""
    both = await asyncio.gather(*(desk.credential() for _ in range(8)))

    assert {one.code for one in both} == {0}
    assert desk.kept() in [json.loads(one.stdout) for one in both]


async def test_cache_of_somebody_else(desk: Desk) -> None:
    """A file that others could write, a link, rubbish, and a folder that is open: not used, and no harm."""
    poison = json.dumps({"kind": "ExecCredential", "status": {"expirationTimestamp": "2099-01-01T00:00:00Z"}})
    await desk.credential()
    key = desk.cache.read_text().splitlines()[0]
    file, right = desk.cache, f"{key}\n{poison}\n"

    def changed(text: str, mode: int) -> None:
        file.write_text(text)
        file.chmod(mode)

    harmless = [(right, 0o644), (right, 0o620), (f"another request\n{poison}\n", 0o600), ("", 0o600), ("\n\n", 0o600)]
    for text, mode in harmless:
        changed(text, mode)
        assert "token" in (await desk.credential()).stdout
    changed(right, 0o600)
    assert (await desk.credential()).stdout.strip() == poison  # ours, and as it should be: this is what is trusted
    elsewhere = desk.folder / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert "token" in (await desk.credential()).stdout
    assert elsewhere.read_text() == right
    file.unlink()
    file.parent.chmod(0o777)
    assert "token" in (await desk.credential()).stdout
    assert not list(file.parent.iterdir())


async def test_two_clients_do_not_share_a_file(desk: Desk) -> None:
    """Nor do two requests of one client."""
    await desk.credential()
    first = desk.cache.name
    desk.forget()
    program = desk.user()["exec"]["args"]
    other = [*program[:-1], program[-1].replace('"format"', '"ttl":"20m","format"')]
    process = await asyncio.create_subprocess_exec(
        *("sh", *other), env={"PATH": os.environ["PATH"], "HOME": str(desk.folder), **desk.environment}, stdout=PIPE
    )
    await process.communicate()

    assert process.returncode == 0
    assert desk.cache.name != first


async def test_secret_is_in_no_argument(desk: Desk) -> None:
    """What everybody can read of running programs does not have it: curl is replaced by one that shows it."""
    spy = desk.folder / "bin"
    spy.mkdir()
    (spy / "curl").write_text('#!/bin/sh\nprintf "%s\\n" "$@" >>"$HOME/arguments"\ncat >/dev/null\nexit 7\n')
    (spy / "curl").chmod(0o755)
    await desk.credential(PATH=f"{spy}:{os.environ['PATH']}")
    arguments = (desk.folder / "arguments").read_text()

    assert "/v1/tokens" in arguments
    assert (desk.folder / "deployer.secret").read_text() not in arguments


async def test_a_jwt_in_the_place_of_the_secret(federated: Federated, tmp_path: Path) -> None:
    """From a file, from the environment, and from the runner of a job of GitHub Actions."""
    reply = await federated.ask(federated.jwt(), format="kubeconfig", exec=True, grant="default", ttl="20m")
    (tmp_path / "deployer.kubeconfig").write_text(reply.body)
    (tmp_path / "jwt").write_text(federated.jwt() + "\n")
    desk = Desk(federated.lab, federated.broker, tmp_path)

    async def runner(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"] != "Bearer the-runners-own" or request.query["api-version"] != "2.0":
            raise web.HTTPUnauthorized
        return web.json_response({"count": 1, "value": federated.issuer.token(request.query["audience"])})

    federated.issuer.streams["/runner"] = runner
    job = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{federated.issuer.url}/runner?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "the-runners-own",
        "CURL_CA_BUNDLE": str(federated.issuer.ca_file),
    }
    ways = ({"TOKENBROKER_JWT_FILE": str(tmp_path / "jwt")}, {"TOKENBROKER_JWT": federated.jwt()}, job)
    for environment in ways:
        desk.forget()
        got = await desk.credential(**environment)
        assert got.code == 0, got.stderr
        token = json.loads(got.stdout)["status"]["token"]
        claims = unverified_claims(token)
        assert (claims["sub"], claims["exp"] - claims["iat"]) == ("system:serviceaccount:federated:reader", 1200)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"exec": True}, 400, "invalid_request"),
        ({"exec": True, "format": "token"}, 400, "invalid_request"),
        ({"exec": "true", "format": "kubeconfig"}, 400, "invalid_request"),
        ({"exec": True, "format": "kubeconfig", "grant": "nothing"}, 403, "grant_unknown"),
        ({"exec": True, "format": "kubeconfig", "ttl": "1m"}, 422, "ttl_out_of_range"),
        ({"exec": True, "format": "kubeconfig", "deliver": "vault"}, 400, "invalid_request"),
    ],
    ids=str,
)
async def test_a_kubeconfig_that_could_never_fetch_is_refused(
    federated: Federated, body: dict[str, Any], status: int, code: str
) -> None:
    """When it is made, not when kubectl is waiting."""
    reply = await federated.ask(federated.jwt(), **body)

    assert (reply.status, reply.body["code"]) == (status, code)


async def test_a_broker_without_a_public_url_says_so(installed: Lab, tenant: Tenant) -> None:
    """It does not guess under which name it is called."""
    async with BrokerProcess.start(installed, "without-a-url") as broker:
        await tenant.account("reader")
        client = await tenant.client("caller", {"serviceAccount": {"name": "reader"}})
        await broker.until_ready(client.id)
        reply = await broker.call("POST", "/v1/tokens", {"exec": True, "format": "kubeconfig"}, auth=client.auth)
        metadata = await broker.call("GET", "/.well-known/oauth-authorization-server")
        assertion = {"client_assertion_type": ASSERTION, "client_assertion": "x.y.z"}
        form = urlencode({"grant_type": "client_credentials", "client_id": client.id, **assertion}).encode()
        signed = await broker.call("POST", "/oauth2/token", data=form, headers={"Content-Type": FORM})

    assert (metadata.status, signed.status) == (404, 401)

    assert (reply.status, reply.body["code"]) == (403, "delivery_not_configured")
    assert "listen.public_url" in reply.body["detail"]

"""Jobs of GitHub, GitLab and Jenkins outside the cluster, with the lines of their pages in docs/connect."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from broker.config import IssuerConfig
from tests.support.broker import BrokerProcess, Tenant
from tests.support.certificates import Authority
from tests.support.command import command_with
from tests.support.issuer import Issuer
from tests.support.lab import Lab
from tests.support.pages import blocks, moved, typed_commands
from tests.support.processes import free_port

GITHUB, GITLAB, JENKINS = "connect/github-actions.md", "connect/gitlab.md", "connect/jenkins.md"
BROKER = "https://broker.example:8443"
GITHUB_ISSUER, GITLAB_ISSUER = "https://token.actions.githubusercontent.com", "https://gitlab.com"
GITLAB_CLAIMS = {
    "sub": "project_path:octo/shop:ref_type:branch:ref:main",
    "namespace_id": "77",
    "project_id": "4242",
    "ref_protected": "true",
    "environment": "production",
}


@dataclass(frozen=True, slots=True)
class Ran:
    """How a script ended, and everything that it said."""

    code: int
    said: str


@dataclass(frozen=True, slots=True)
class Runner:
    """A machine that runs jobs: with sh, curl, jq and kubectl, and a broker and issuers to call."""

    broker_url: str
    github: Issuer
    gitlab: Issuer
    folder: Path

    async def run(self, script: str, env: Mapping[str, str]) -> Ran:
        """Run a script as runners do, and stop at the first command that fails."""
        clean = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "CURL_CA_BUNDLE": str(self.folder / "bundle.pem"),
        }
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-e", "-c", script, env=clean | dict(env), stdout=-1, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
        return Ran(process.returncode or 0, output.decode())

    async def github_job(self, env: Mapping[str, str]) -> list[Ran]:
        """Run the steps of the page's workflow, up to the first that fails; what a step exports, the next one has."""
        workflow = yaml.safe_load(moved(blocks(GITHUB, "yaml")[1], {BROKER: self.broker_url}))
        exported, ran = self.folder / "github.env", list[Ran]()
        exported.write_text("")
        for step in workflow["jobs"]["deploy"]["steps"]:
            more = dict(line.split("=", 1) for line in exported.read_text().splitlines())
            places = {"RUNNER_TEMP": str(self.folder), "GITHUB_ENV": str(exported)}
            ran.append(await self.run(step["run"], {**env, **places, **more}))
            if ran[-1].code:
                break
        return ran

    async def gitlab_job(self, **claims: str) -> Ran:
        """Run the script of the page's job with a JWT for the audience that the job asks for."""
        job = yaml.safe_load(moved(blocks(GITLAB, "yaml")[1], {BROKER: self.broker_url}))["deploy"]
        github = dict.fromkeys(("repository", "repository_id", "repository_owner_id"))
        env = {
            name: self.gitlab.token(wanted["aud"], **{**github, **GITLAB_CLAIMS, **claims})
            for name, wanted in job["id_tokens"].items()
        }
        return await self.run("\n".join(job["script"]), env)

    async def jenkins_job(self, secret: str) -> Ran:
        """Run the shell step of the page's pipeline, traced as Jenkins does it, with the credential bound."""
        (pipeline,) = (moved(block, {BROKER: self.broker_url}) for block in blocks(JENKINS, "groovy"))
        (script,) = re.findall(r"sh '''\n(.*?)'''", pipeline, re.DOTALL)
        (variable,) = re.findall(r"variable: '(\w+)'", pipeline)
        return await self.run("set -x\n" + script, {variable: secret})

    @property
    def arguments(self) -> str:
        """What a process list would have shown of curl."""
        return (self.folder / "arguments").read_text()

    @property
    def jenkins_secret(self) -> str:
        """The content of the file that the page's registration writes."""
        return (self.folder / "jenkins.secret").read_text()


def _oidc(page: str, issuer: Issuer, example: str) -> dict[str, Any]:
    """Return the issuer of a page's operator's configuration, which the broker takes as it stands there too."""
    (listed,) = yaml.safe_load(blocks(page, "yaml")[0])["oidc"]["issuers"]
    assert IssuerConfig.model_validate(listed).issuer == example
    return issuer.config(claims=listed["claims"])


def _tools(folder: Path, kubectl: list[str]) -> None:
    """Put kubectl on the path, and a curl that notes its arguments."""
    for name, body in {
        "kubectl": f'exec {" ".join(kubectl)} "$@"',
        "curl": f'printf "%s\\n" "$@" >> {folder / "arguments"}\nexec {shutil.which("curl")} "$@"',
    }.items():
        file = folder / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def runner(installed: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runner]:
    """Start issuers and a broker that is configured as the pages say, and register the clients of all pages."""
    folder = tmp_path_factory.mktemp("runner")
    _tools(folder, installed.cluster.kubectl._command)
    authority = Authority.create(folder, "broker-ca")
    files, port = authority.server("broker"), free_port()
    url = f"https://127.0.0.1:{port}"
    tls = {"cert_file": str(files.certificate), "key_file": str(files.key)}
    async with AsyncExitStack() as stack:
        github, gitlab = [await stack.enter_async_context(Issuer.start(folder / name)) for name in ("github", "gitlab")]
        listed = [_oidc(GITHUB, github, GITHUB_ISSUER), _oidc(GITLAB, gitlab, GITLAB_ISSUER)]
        listen = {"port": port, "public_url": url, "tls": tls}
        broker = await stack.enter_async_context(
            BrokerProcess.start(installed, "for-ci", listen=listen, oidc={"issuers": listed})
        )
        authorities = [authority.file, github.ca_file, gitlab.ca_file]
        (folder / "bundle.pem").write_text("".join(file.read_text() for file in authorities))
        tenant = await Tenant.create(installed.cluster, "shop")
        places = {
            GITHUB_ISSUER: github.url,
            GITLAB_ISSUER: gitlab.url,
            "jenkins.secret": str(folder / "jenkins.secret"),
        }
        for page, mentioned in {GITHUB: GITHUB_ISSUER, GITLAB: GITLAB_ISSUER, JENKINS: "jenkins.secret"}.items():
            ((_, *words),) = typed_commands(moved(blocks(page, "sh")[0], {mentioned: places[mentioned]}))
            ended = await command_with(installed.cluster.kubeconfig, *words)
            assert ended.code == 0, ended.stderr
            await broker.until_ready(f"{tenant.namespace}/{words[2]}")
        yield Runner(url, github, gitlab, folder)


async def test_a_job_of_github_works_on_the_cluster(runner: Runner) -> None:
    """The workflow's steps, one after the other: the token is there, and kubectl uses it."""
    ran = await runner.github_job(runner.github.job)

    assert [step.code for step in ran] == [0, 0], ran
    assert "No resources found in shop namespace" in ran[-1].said


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"repository_id": "654321"}, "proof_claims_mismatch"),
        ({"environment": "test"}, "proof_claims_mismatch"),
        ({"repository_owner_id": "1"}, "invalid_client"),
    ],
)
async def test_a_job_of_somebody_else_is_refused(
    runner: Runner, claims: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another repository, environment or owner: the step fails and says the code, and the job ends there."""
    monkeypatch.setattr(runner.github, "claims", claims)
    ran = await runner.github_job(runner.github.job)

    assert len(ran) == 1
    assert ran[0].code != 0
    assert f'"code":"{words}"' in ran[0].said.replace(": ", ":")


async def test_a_job_that_may_not_have_a_jwt_fails(runner: Runner) -> None:
    """Without ``id-token: write`` there is none, and the step does not call the broker without."""
    ran = await runner.github_job({})

    assert [bool(step.code) for step in ran] == [True]
    assert "curl: (" in ran[0].said
    assert "invalid_client" not in ran[0].said


async def test_a_job_of_any_other_ci_gets_a_token_or_fails(runner: Runner) -> None:
    """The line of the README: a refusal, and a broker that is not there, end the job and are told."""
    (line,) = [block for block in blocks("../README.md", "sh") if block.startswith("TOKEN=")]
    script = moved(line, {"https://broker.example": runner.broker_url, "shop/reporter": "shop/jenkins"})
    secret, job = runner.jenkins_secret, script + 'echo "${TOKEN%%.*}"'
    ran, refused = await runner.run(job, {"SECRET": secret}), await runner.run(job, {"SECRET": secret[:-1]})
    away = await runner.run(job.replace(runner.broker_url, f"https://127.0.0.1:{free_port()}"), {"SECRET": secret})

    assert (ran.code, ran.said[:3]) == (0, "eyJ"), ran
    assert refused.code != 0
    assert "invalid_client: " in refused.said
    assert away.code != 0
    assert "curl: (7)" in away.said


async def test_a_job_of_gitlab_works_on_the_cluster(runner: Runner) -> None:
    """On a protected branch of the project; elsewhere the refusal is the last that it says."""
    ran = await runner.gitlab_job()
    refused = [await runner.gitlab_job(project_id="1"), await runner.gitlab_job(ref_protected="false")]

    assert (ran.code, "No resources found in shop namespace" in ran.said) == (0, True), ran
    assert [other.code for other in refused] == [1, 1]
    assert all('"code":"proof_claims_mismatch"' in other.said.splitlines()[-1] for other in refused)


async def test_a_job_of_jenkins_works_on_the_cluster(runner: Runner) -> None:
    """With its credential; a wrong one is refused, and neither is in the build's log."""
    secret = runner.jenkins_secret
    ran, refused = await runner.jenkins_job(secret), await runner.jenkins_job(secret[:-1])

    assert (ran.code, "No resources found in shop namespace" in ran.said) == (0, True), ran
    assert refused.code != 0
    assert "invalid_client" in refused.said
    assert secret[:-1] not in ran.said + refused.said


async def test_no_process_list_shows_a_secret(runner: Runner) -> None:
    """Arguments are for everybody on the machine to read: no JWT, no secret, no request token is among them."""
    await runner.github_job(runner.github.job)
    await runner.gitlab_job()
    await runner.jenkins_job(runner.jenkins_secret)

    assert f"{runner.broker_url}/v1/tokens" in runner.arguments
    for secret in ("eyJ", runner.jenkins_secret, runner.github.request_token):
        assert secret not in runner.arguments

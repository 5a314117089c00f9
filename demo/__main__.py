"""``make demo``: the whole story on a real cluster; with ``--once`` it ends after it."""

import asyncio
import json
import os
import shutil
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker.identity import secret
from demo.reader import VaultReader
from demo.story import StepFailed, Story
from tests.support.broker import ACCOUNT, ROOT, BrokerProcess, Tenant
from tests.support.installed import install
from tests.support.kubebox import kubebox
from tests.support.lab import Lab

CALLS_AFTER = 20
FOLDER = ROOT / ".demo"
EXAMPLE = ROOT / "examples" / "reporter.yaml"
TOKENS = 'curl -sS -u "$CLIENT_ID:$CLIENT_SECRET" -H "Content-Type: application/json" "$BROKER_URL/v1/tokens"'
VAULT_PATH = "secret/data/tokenbroker/lab/shop/reporter/default"
VAULT = 'curl -sS --cacert "$VAULT_CACERT" -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/$VAULT_PATH"'
SUSPEND = (
    "kubectl patch tokenclient reporter -n shop --as=system:serviceaccount:shop:oncall "
    """--type merge -p '{"spec": {"suspend": %s}}' 2>&1"""
)
RESUME = """kubectl patch tokenclient reporter -n shop --type merge -p '{"spec": {"suspend": null}}' 2>&1"""
CALL = 'curl -sS -o /dev/null -w "%{http_code}" --cacert "$KUBE_CA" -H "Authorization: Bearer $(cat "$TOKEN")"'


async def demo(*, once: bool) -> None:
    """Set up, tell the story, and stay up unless ``once``."""
    started = time.monotonic()
    with _folder() as folder:
        print("Starting etcd, kube-apiserver, kube-controller-manager and OpenBao ...", flush=True)
        async with Lab.start() as lab:
            await install(lab.cluster)
            async with BrokerProcess.start(lab, log_level="info", limits=[]) as broker:
                print(f"  all up after {time.monotonic() - started:.1f} s", flush=True)
                state = await _state(lab, broker, folder)
                story = Story(_environment(lab, state, folder))
                await _tell(story, lab)
                _write_state(folder, state)
                lines = lines_to_try(state, folder)
                await _try_out(lines)
                print(f"\nEvery result above was checked. {time.monotonic() - started:.1f} s in all.", flush=True)
                if not once:
                    await _stay(lines)


async def _tell(story: Story, lab: Lab) -> None:
    tenant = await Tenant.create(lab.cluster, "shop")
    story.chapter("1. The broker runs under its own account, which can read and grant nothing")
    me = f"--as=system:serviceaccount:{ACCOUNT[0]}:{ACCOUNT[1]}"
    await story.step(f"kubectl get secrets -A {me}", "forbidden", "refused by the API server, as it should be")
    await story.step(
        f"kubectl create clusterrolebinding mine --clusterrole=cluster-admin --user=me {me}",
        "forbidden",
        "refused: it cannot grant anything to anybody",
    )
    story.chapter("2. A namespace's owner registers a client, next to the account it may use")
    await _register(story, tenant)
    story.chapter("3. The client, outside the cluster, gets a token for 15 minutes")
    await _use(story)
    story.chapter("4. Another one reads Vault, where a current token is kept, and never sees a 401")
    await _rotate(story, lab)
    story.chapter("5. Nobody gets more than he may: not by writing TokenClients, and not through a strong account")
    await _escalate(story)
    story.chapter("6. What was handed out is taken back, by somebody on call who may do nothing else")
    await _revoke(story)
    story.chapter("7. Operators see what happened")
    await story.step(
        'curl -sS "$METRICS_URL" | grep ^tokenbroker_tokens_issued_total',
        'client="reporter"',
        "counted by client and grant",
    )
    await story.step(
        'grep token.issued "$AUDIT_LOG"', "token_sha256", "audited before it was handed out, without the token"
    )


async def _register(story: Story, tenant: Tenant) -> None:
    shown = EXAMPLE.relative_to(ROOT)
    await story.step(
        f'sed "s/DIGEST/$CLIENT_DIGEST/" {shown} | kubectl apply -f -', "created", "account, rights and TokenClient"
    )
    await story.until(
        f"kubectl get tokenclients -n {tenant.namespace}",
        "True    Ready    20",
        "Ready: the broker tried out that it may mint, and Vault holds a token until then",
    )


async def _use(story: Story) -> None:
    await story.step(
        f'{TOKENS} -d \'{{"ttl":"15m"}}\' | tee "$ANSWER" | cut -c1-60',
        '"id"',
        "a token, with endpoint and CA in the same answer",
    )
    extract = """sed 's/.*"token":"\\([^"]*\\)".*/\\1/' "$ANSWER" > "$TOKEN" && grep -c '^eyJ' "$TOKEN\""""
    await story.step(extract, "1", "put into a file")
    await story.step(f'{TOKENS} -d \'{{"ttl":"2h"}}\'', "ttl_out_of_range", "2 hours refused, with the grant's limits")
    base = "$KUBE_URL/api/v1/namespaces/shop"
    await story.step(f'{CALL} "{base}/pods"', "200", "list pods: allowed by its Role")
    await story.step(f'{CALL} "{base}/secrets"', "403", "get secrets: not in its Role")


async def _rotate(story: Story, lab: Lab) -> None:
    await story.until(
        f"{VAULT} | grep -o '\"version\":[0-9][0-9]*'", '"version":1', "version 1 is there, without a request"
    )
    reader = VaultReader(lab, VAULT_PATH)
    async with reader.looping():
        await story.step(
            f'{TOKENS} -d \'{{"deliver":"vault"}}\'', '"version":2', "replaced now; the answer has no token in it"
        )
        await story.step(f"{VAULT} | grep -o '\"version\":[0-9][0-9]*'", '"version":2', "readers find version 2")
        await reader.has_called(CALLS_AFTER, version=2)
    if reader.refused or set(reader.versions) != {1, 2}:
        raise StepFailed(f"the reader saw versions {reader.versions} and {reader.refused} times 401")
    calls = sum(reader.versions.values())
    print(f"    \033[32m✓\033[0m a reader that called the API all the while: {calls} calls, 0 times 401", flush=True)


async def _escalate(story: Story) -> None:
    people, client = (f"demo/{name}.yaml" for name in ("people", "deployer"))
    await story.step(f"kubectl apply -f {people}", "deployer-edit", "an account with the role edit, dev, and oncall")
    await story.step(
        f"kubectl create -f {client} --as=system:serviceaccount:shop:dev 2>&1",
        "tokenbroker-registration",
        "refused by admission: dev may write TokenClients, but not mint for the account deployer",
    )
    await story.step(f"kubectl create -f {client}", "created", "an admin may; but deployer holds the role edit ...")
    await story.until(
        "kubectl get tokenclients deployer -n shop",
        "AccountTooStrong",
        "... and is not served: it could make credentials that no revocation ends",
    )


async def _revoke(story: Story) -> None:
    base = "$KUBE_URL/api/v1/namespaces/shop"
    await story.step(f'{CALL} "{base}/pods"', "200", "the token of chapter 3 still works")
    await story.step(
        SUSPEND % "true",
        "patched",
        "on-call suspends the client",
    )
    await story.until(f'{CALL} "{base}/pods"', "401", "the API server refuses the token")
    print(f"    \033[32m✓\033[0m {story.waited:.1f} s after the suspension (15 s are promised)", flush=True)
    await story.step(f"{TOKENS} -d '{{}}'", "client_suspended", "and there is no other one")
    await story.step(
        SUSPEND % "null",
        "tokenbroker-registration",
        "on-call cannot resume: that takes the right to mint for the account",
    )
    await story.step(RESUME, "patched", "an admin may")
    await story.until(f"{TOKENS} -d '{{}}' | cut -c1-60", '"id"', "and the client is served again")


async def _state(lab: Lab, broker: BrokerProcess, folder: Path) -> dict[str, Any]:
    return {
        "broker_url": broker.url,
        "metrics_url": broker.ops_url + "/metrics",
        "kube_url": lab.cluster.server,
        "kube_ca_file": str(lab.cluster.ca_file),
        "kubeconfig": str(lab.cluster.kubeconfig),
        "vault_url": lab.vault.address,
        "vault_token": lab.vault.root_token,
        "client_id": "shop/reporter",
        "client_secret": secret.generate().reveal(),
        "grant": "default",
        "vault_path": VAULT_PATH,
        "audit_log": str(broker.audit_file),
        "bin": str(folder / "bin"),
    }


def _environment(lab: Lab, state: dict[str, Any], folder: Path) -> dict[str, str]:
    kubectl = folder / "bin" / "kubectl"
    kubectl.parent.mkdir(exist_ok=True)
    if not os.environ.get("KUBECONFIG_FOR_TESTS"):
        kubectl.write_text(f'#!/bin/sh\nexec "{kubebox()}" kubectl "$@"\n')
        kubectl.chmod(0o755)
    digest = secret.format_digest(secret.digest(state["client_secret"]))
    return os.environ | {
        "PATH": f"{kubectl.parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(lab.cluster.kubeconfig),
        "BROKER_URL": state["broker_url"],
        "METRICS_URL": state["metrics_url"],
        "KUBE_URL": state["kube_url"],
        "KUBE_CA": state["kube_ca_file"],
        "VAULT_ADDR": lab.vault.address,
        "VAULT_CACERT": str(lab.vault.ca_file),
        "VAULT_TOKEN": lab.vault.root_token,
        "VAULT_PATH": VAULT_PATH,
        "CLIENT_ID": state["client_id"],
        "CLIENT_SECRET": state["client_secret"],
        "CLIENT_DIGEST": digest,
        "AUDIT_LOG": state["audit_log"],
        "ANSWER": str(folder / "answer.json"),
        "TOKEN": str(folder / "token"),
    }


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    path = folder / "state.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(state, indent=2) + "\n")


def lines_to_try(state: dict[str, Any], folder: Path) -> list[str]:
    """Return what somebody may type in another terminal, line by line."""
    file = folder / "reporter.kubeconfig"
    read = f'import json; print(json.load(open("{folder / "state.json"}"))["client_secret"])'
    curl = f'curl -sS --fail-with-body -u "{state["client_id"]}:$CLIENT_SECRET"'
    return [
        "umask 077",
        f"export KUBECONFIG={state['kubeconfig']} PATH={state['bin']}:$PATH",
        "kubectl describe tokenclient reporter -n shop",
        f"CLIENT_SECRET=$(python3 -c '{read}')",
        f"{curl} {state['broker_url']}/v1/grants",
        f'{curl} -H "Content-Type: application/json" \\',
        f"""    {state["broker_url"]}/v1/tokens -d '{{"format": "kubeconfig"}}' > {file}""",
        f"kubectl --kubeconfig {file} auth whoami",
        f"curl -sS {state['metrics_url']} | grep ^tokenbroker_",
    ]


async def _try_out(lines: list[str]) -> None:
    """Run what is about to be printed. Raises StepFailed where a line would fail."""
    process = await asyncio.create_subprocess_exec("sh", "-euc", "\n".join(lines), stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise StepFailed(f"the lines to try end with {process.returncode}: {output.decode()[-500:]}")


async def _stay(lines: list[str]) -> None:
    print("\nIt stays up until Ctrl-C. Try, in another terminal:")
    print("\n".join(f"  {line}" for line in lines), flush=True)
    await asyncio.Event().wait()


@contextmanager
def _folder() -> Iterator[Path]:
    """Make the demo's folder, which nobody else may read, and remove it in the end."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(mode=0o700)
    yield FOLDER


def main() -> int:
    """Return the exit code: 0 only if every step's result was checked."""
    try:
        asyncio.run(demo(once="--once" in sys.argv))
    except StepFailed as failed:
        print(f"\nNOT as expected: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; nothing is left running.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the broker's admission policies must refuse, tried for real and kept from having an effect.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
"""

from typing import Any

from broker.errors import BrokerError, Reason
from broker.kube.answer import Answer, unavailable
from broker.kube.session import KubeSession
from broker.model.policies import SECRETS, TOKENS

NAME = "tokenbroker-canary"
"""An account without any rights in the broker's own namespace, for which the broker may mint but for the policy."""


class KubeCanary:
    """Dry-runs a forbidden Secret and a forbidden TokenRequest; implements :class:`broker.services.canary.Probe`."""

    def __init__(self, session: KubeSession, namespace: str) -> None:
        self._session = session
        self._base = f"/api/v1/namespaces/{namespace}"

    async def missing(self) -> tuple[str, ...]:
        """Return the policies that did not refuse what they must, by name.

        Raises BrokerError: kubernetes_unavailable, kubernetes_timeout, broker_not_authorized.
        """
        tried = (
            (SECRETS, f"{self._base}/secrets", _SECRET),
            (TOKENS, f"{self._base}/serviceaccounts/{NAME}/token", _ASK),
        )
        return tuple([policy for policy, path, body in tried if not await self._is_refused(policy, path, body)])

    async def _is_refused(self, policy: str, path: str, body: dict[str, Any]) -> bool:
        answer = await self._session.call("POST", f"{path}?dryRun=All", body, repeatable=True)
        if f"ValidatingAdmissionPolicy '{policy}'" in answer.message():
            return True
        if answer.ok or answer.status in {409, 422}:  # what stands in the way, or refuses, comes after our policy
            return False
        if answer.status in {403, 404}:
            raise _not_set_up(answer)
        raise unavailable(f"a trial of policy {policy} answered {answer.status}", answer.retry_after)


_SECRET = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": NAME}}
_ASK = {
    "apiVersion": "authentication.k8s.io/v1",
    "kind": "TokenRequest",
    "spec": {"audiences": ["tokenbroker-canary"], "expirationSeconds": 600},
}


def _not_set_up(answer: Answer) -> BrokerError:
    return BrokerError(
        Reason.BROKER_NOT_AUTHORIZED,
        "The broker cannot find out whether its limits are in force; its operators have been told.",
        operator_detail=(
            f"The broker cannot try out its admission policies: apply the account {NAME} and its Role of deploy/base. "
            f"The API server said: {answer.message()}"
        ),
        retry_after=30,
    )

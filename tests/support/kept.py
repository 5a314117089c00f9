"""A token that the broker keeps in Vault, as Vault's and the cluster's admins see it."""

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from broker.model.stored_copy import CopyLabel
from broker.vault.label import read_label, write_label
from tests.support.broker import Tenant
from tests.support.lab import Lab
from tests.support.processes import until

AUDIENCE = "https://kubernetes.default.svc.cluster.local"
ANCHORS = "secrets?fieldSelector=type%3Dtokenbroker.dev/anchor"


@dataclass(frozen=True, slots=True)
class Kept:
    """The copy of the grant ``default`` of a client."""

    lab: Lab
    tenant: Tenant
    client: str = "reader"

    async def there(self) -> bool:
        """Tell whether readers find a version."""
        return (await self.lab.vault.api("GET", self._path("data")))[0] == 200

    async def newest(self) -> tuple[int, str]:
        """Return the number and the token that readers find now."""
        return await self._read("")

    async def version(self, number: int) -> str:
        """Return the token of a version; Vault keeps ten of them."""
        return (await self._read(f"?version={number}"))[1]

    async def label(self) -> CopyLabel:
        """Return what stands next to the newest version."""
        status, answer = await self.lab.vault.api("GET", self._path("metadata"))
        assert status == 200, answer
        label = read_label(answer["data"]["custom_metadata"])
        assert label is not None
        return label

    async def let_expire(self, *anchors: str) -> None:
        """Let the time be over for which these retired anchors are kept, and have the broker look at it."""
        label, past = await self.label(), datetime.now(UTC) - timedelta(seconds=1)
        retired = tuple(replace(one, until=past) if one.anchor.uid in anchors else one for one in label.retired)
        metadata = {"custom_metadata": write_label(replace(label, retired=retired))}
        status, answer = await self.lab.vault.api("POST", self._path("metadata"), metadata)
        assert status == 204, answer
        await self.tenant.patch(self.client, {"owner": uuid.uuid4().hex})

    async def anchors(self) -> set[str]:
        """Return the UIDs of all anchors in the namespace."""
        return {uid for uid, _ in await self._anchors()}

    async def tops(self) -> dict[str, str]:
        """Return the UIDs of the anchors that hang below the TokenClient itself, by their kind."""
        below = {"version", "bucket", "token"}
        return {kind: uid for uid, kind in await self._anchors() if kind not in below}

    async def _anchors(self) -> list[tuple[str, str]]:
        status, found = await self.lab.cluster.request("GET", f"/api/v1/namespaces/{self.tenant.namespace}/{ANCHORS}")
        assert status == 200, found
        return [(it["metadata"]["uid"], it["metadata"]["labels"]["tokenbroker.dev/anchor"]) for it in found["items"]]

    async def until_gone(self, *anchors: str) -> None:
        """Wait until these anchors are not there any more, nor in the label."""

        async def gone() -> bool:
            described = {one.anchor.uid for one in (await self.label()).retired}
            return not {*anchors} & (described | await self.anchors())

        await until(gone, what="anchors are gone", seconds=10)

    async def accepted(self, token: str) -> bool:
        """Ask the API server for its word on a token, with audiences for which it remembers no earlier one."""
        spec = {"token": token, "audiences": [AUDIENCE, uuid.uuid4().hex]}
        _, review = await self.lab.cluster.request(
            "POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": spec}
        )
        return bool(review["status"].get("authenticated"))

    async def _read(self, query: str) -> tuple[int, str]:
        status, answer = await self.lab.vault.api("GET", self._path("data") + query)
        assert status == 200, answer
        return answer["data"]["metadata"]["version"], answer["data"]["data"]["token"]

    def _path(self, kind: str) -> str:
        return f"secret/{kind}/tokenbroker/lab/{self.tenant.namespace}/{self.client}/default"

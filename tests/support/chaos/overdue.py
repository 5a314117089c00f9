"""A copy in Vault that has to be replaced while a fault lasts, and how long after it that was done."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from broker.model.stored_copy import CopyLabel
from tests.support.chaos.invariants import Copy
from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import READER, ROTATED
from tests.support.processes import until

COPY_DUE = "copy that was due"

_WRITTEN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Overdue:
    """The newest version when the fault began."""

    scene: Scene
    copy: Copy
    label: CopyLabel

    @classmethod
    async def written(cls, scene: Scene, *, ttl: int, renew_before: int) -> Self:
        """Have the copy that nobody asks for kept with another ``ttl``, in seconds, and return the version of it."""
        copy = next(Copy(app) for app in scene.apps if app.what == ROTATED)
        vault = {"ttl": f"{ttl}s", "renewBefore": f"{renew_before}s"}
        await scene.tenant.patch("kept", {"grants": [READER | {"vault": vault}]})
        found: list[CopyLabel] = []

        async def there() -> bool:
            label = await copy.label(scene.lab)
            found[:] = [label] if label is not None and label.ttl_seconds == ttl else []
            return bool(found)

        await until(there, what="a version of this life is there", seconds=_WRITTEN_SECONDS)
        return cls(scene, copy, found[0])

    @property
    def rest(self) -> float:
        """For how many seconds the version is good."""
        return (self.label.expires_at - datetime.now(UTC)).total_seconds()

    async def replaced(self, since: datetime) -> float:
        """Wait until it is, or has expired, and return how many seconds after ``since`` that was by Vault's own word.

        Raises AssertionError where it was replaced before that, or expired first: then apps had nothing better to read.
        """

        async def over() -> bool:
            label = await self.copy.label(self.scene.lab)
            return self.rest <= 0 or (label is not None and label.version > self.label.version)

        await until(over, what="the copy is replaced or expired", seconds=max(self.rest, 0.0) + 1)
        _, answer = await self.scene.lab.vault.api("GET", f"secret/metadata/{self.copy.app.path}")
        following = answer["data"]["versions"].get(str(self.label.version + 1))
        assert following is not None, "the copy has expired, though there was a way to renew it"
        written = datetime.fromisoformat(following["created_time"])
        assert since <= written < self.label.expires_at
        self.scene.outcome.healed[COPY_DUE] = (written - since).total_seconds()
        return self.scene.outcome.healed[COPY_DUE]

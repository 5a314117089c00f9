"""What somebody who may do anything in Vault does to copies there. Apps that read them know of it before it is seen."""

from tests.support.chaos.load import VaultApp
from tests.support.openbao import OpenBao


async def destroy_all(vault: OpenBao, app: VaultApp) -> None:
    """Destroy all versions that there are; what describes them stays."""
    _, answer = await vault.api("GET", f"secret/metadata/{app.path}")
    versions = [int(number) for number in answer["data"]["versions"]]
    app.spoiled |= {*versions}
    status, _ = await vault.api("PUT", f"secret/destroy/{app.path}", {"versions": versions})
    assert status in {200, 204}


async def write_theirs(vault: OpenBao, app: VaultApp) -> int:
    """Write a version that is none of the broker's, which readers know before they can see it."""
    while True:
        newest = await app.token()
        assert newest is not None
        app.spoiled.add(newest[0] + 1)
        body = {"options": {"cas": newest[0]}, "data": {"token": "theirs"}}
        status, _ = await vault.api("POST", f"secret/data/{app.path}", body)
        if status == 200:
            return newest[0] + 1
        app.spoiled.discard(newest[0] + 1)

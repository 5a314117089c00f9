"""How far Vault's data has got, as told by answers that come in any order."""

import base64

import pytest

from broker.vault.consistency import INDEX, StorageIndex


def _bao(value: int, cluster: str = "a") -> str:
    return base64.b64encode(b'{"cluster":"%s","value":"%d"}' % (cluster.encode(), value)).decode()


def _vault(local: int, replicated: int) -> str:
    return base64.b64encode(b"v1:id:%d:%d:0a" % (local, replicated)).decode()


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ((_bao(9), 1.0), (_bao(10), 1.0), _bao(10)),
        ((_bao(10), 1.0), (_bao(9), 2.0), _bao(10)),
        ((_vault(10, 5), 1.0), (_vault(9, 5), 2.0), _vault(10, 5)),
        ((_vault(9, 5), 2.0), (_vault(10, 5), 1.0), _vault(10, 5)),
        ((_vault(9, 5), 1.0), (_vault(8, 6), 2.0), _vault(8, 6)),
        ((_bao(10), 1.0), (_bao(2, "b"), 2.0), _bao(2, "b")),
        (("bmV3", 2.0), ("b2xk", 1.0), "bmV3"),
        (("b2xk", 1.0), ("bmV3", 2.0), "bmV3"),
    ],
)
async def test_the_furthest_is_kept(first: tuple[str, float], second: tuple[str, float], kept: str) -> None:
    """Whichever answer is read last; of what cannot be compared, that to the request which was sent last."""
    index = StorageIndex()
    index.note(*first)
    index.note(*second)

    assert index.sent()[INDEX] == kept

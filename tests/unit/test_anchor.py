"""How anchors are called: nobody can guess a name to come, and every name tells below what it hangs."""

from dataclasses import replace

import pytest

from broker.model.anchor import (
    NAME_PREFIX,
    AnchorKind,
    bucket_anchor,
    grant_anchor,
    is_below,
    token_anchor,
    token_id_of,
    trial_anchor,
    vault_anchor,
    version_anchor,
)
from broker.model.client import DNS_SUBDOMAIN
from broker.model.token import Anchor
from tests.support.rotation import grant

TOP = grant_anchor("uid-1", grant())
MADE = Anchor(TOP.name, "0A1B2C3D-0000-4000-8000-000000000000")
ID = "0123456789abcdef01234567"


def test_names_are_of_the_client_its_grant_and_the_account() -> None:
    """Another one of any of these has another anchor, and each kind has its own."""
    others = [
        grant_anchor("uid-2", grant()),
        grant_anchor("uid-1", replace(grant(), name="other")),
        grant_anchor("uid-1", replace(grant(), service_account="other")),
        vault_anchor("uid-1", grant()),
        trial_anchor("uid-1", grant()),
    ]

    assert len({TOP.name, *(other.name for other in others)}) == 1 + len(others)
    assert grant_anchor("uid-1", replace(grant(), audiences=("x",))) == TOP


def test_names_are_names_of_secrets() -> None:
    """All begin with what admission knows them by, and carry no more of the UID than a part."""
    made = [TOP, bucket_anchor(TOP, MADE, 82000), token_anchor(TOP, ID), version_anchor(TOP, MADE, 10**6)]

    for one in made:
        assert one.name.startswith(NAME_PREFIX)
        assert DNS_SUBDOMAIN.fullmatch(one.name)
        assert one.account == "reporter"
    assert [one.kind for one in made] == [AnchorKind.GRANT, AnchorKind.BUCKET, AnchorKind.TOKEN, AnchorKind.VERSION]


def test_what_hangs_below_an_anchor_is_called_after_it() -> None:
    """Also after it was made again: what hung below the former one has other names."""
    again = Anchor(TOP.name, "ffffffff-0000-4000-8000-000000000000")

    assert is_below(bucket_anchor(TOP, MADE, 1).name, TOP)
    assert is_below(TOP.name, TOP)
    assert not is_below(vault_anchor("uid-1", grant()).name, TOP)
    assert not is_below(TOP.name + "x", TOP)
    assert bucket_anchor(TOP, MADE, 1) != bucket_anchor(TOP, again, 1)
    assert version_anchor(TOP, MADE, 1) != version_anchor(TOP, again, 1)


@pytest.mark.parametrize(
    "name",
    [TOP.name, f"{TOP.name}-b7", f"{TOP.name}-t{ID}0", f"{TOP.name}-t{ID[:-1]}", f"x-t{ID}", f"{TOP.name}-T{ID}"],
)
def test_only_a_token_with_an_anchor_of_its_own_has_an_id(name: str) -> None:
    """Nothing else is taken for one."""
    assert token_id_of(token_anchor(TOP, ID).name, TOP) == ID
    assert token_id_of(name, TOP) is None

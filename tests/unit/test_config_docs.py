"""docs/configuration.md has a row for every key, and for no other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from broker.config import Config

REFERENCE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
CHOSEN_BY_TLS = {"listen.tls.client_ca_file"}
"""A row of its own for one of the files that ``listen.tls`` may hold."""


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
        if len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel):
            yield from _keys(kinds[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_key_is_documented() -> None:
    """In the first column, where several keys may share a row."""
    rows = re.findall(r"^\| ([^|]*)\|", REFERENCE, re.MULTILINE)
    documented = {key for row in rows for key in re.findall(r"`([a-z_.]+)`", row)}

    assert documented == set(_keys(Config)) | CHOSEN_BY_TLS

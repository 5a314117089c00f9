"""What commands print: tables for people, JSON and YAML for programs."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

import typer
import yaml


class Output(StrEnum):
    """What ``-o`` takes."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 ./_-]*[A-Za-z0-9]", re.ASCII)
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off"})
_NOT_A_TERMINAL = 10_000


class _Dumper(yaml.SafeDumper):
    """Quotes every string that any YAML reader could take for something else.

    PyYAML alone writes ``1e3`` and ``y`` without quotes, and kubectl reads a number and a boolean.
    """

    def ignore_aliases(self, data: object) -> bool:
        """Write equal parts out: nobody wants anchors in a manifest."""
        del data
        return True


def _quoted(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _quoted)


def to_yaml(documents: Iterable[Any]) -> str:
    """Return YAML documents, one after the other, with keys in the order given."""
    return yaml.dump_all(
        documents,
        Dumper=_Dumper,
        sort_keys=False,
        width=_NOT_A_TERMINAL,
        explicit_start=True,
        allow_unicode=True,
    )


def to_json(document: Any) -> str:
    """Return indented JSON."""
    return json.dumps(document, indent=2)


def show(document: Any, output: Output) -> None:
    """Print a document as JSON or YAML."""
    typer.echo(to_json(document) if output is Output.JSON else to_yaml([document]).rstrip("\n"))


def printable(text: str) -> str:
    """Return text of others without the control characters that could repaint a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns under their names. Where output goes to a program, no line is ever broken."""
    from rich.console import Console  # noqa: PLC0415 - only tables need it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    view = Table(*columns, box=None, pad_edge=False, header_style="")
    for row in rows:
        view.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else _NOT_A_TERMINAL, highlight=False).print(view)

"""What the documentation tells people to type and to write."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page of docs/, as they stand there."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def moved(text: str, places: Mapping[str, str]) -> str:
    """Return a block with the example's addresses and folders replaced by real ones; each of them must be there."""
    for example, real in places.items():
        if example not in text:
            raise ValueError(f"{example} is not in:\n{text}")
        text = text.replace(example, real)
    return text


def typed_commands(block: str) -> list[list[str]]:
    """Return the commands of a block as lists of words; a line with a backslash at its end goes on."""
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]

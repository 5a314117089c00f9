"""YAML, and of it what is JSON: no aliases, no tags, no name twice, and nothing that two readers read differently.

Built from the parser's events and not by PyYAML's loader: nothing is made before it is known to be allowed, nesting
cannot exhaust the stack, and times stay the texts that the API server would get. Pure.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_DEPTH = 32
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C is ten times as fast; where PyYAML was built without it, the other reads the same."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
_PERHAPS = frozenset("yYnN")
"""Truth to kubectl, text to most others; two of them are names in JSON Web Keys."""

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT = re.compile(r"[-+]?([0-9]{1,18}\.[0-9]{0,18}|\.[0-9]{1,18}|[0-9]{1,18})([eE][-+]?[0-9]{1,3})?", re.ASCII)
_LIKE_A_NUMBER = re.compile(
    r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|0[xob][0-9a-fA-F_]+"
    r"|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
    re.ASCII,
)
_SURROGATE = re.compile("[\ud800-\udfff]")


class NotPlainError(ValueError):
    """The text is not YAML, or more than is read; the message names the line and quotes nothing."""


@dataclass(slots=True)
class _Open:
    """A sequence or mapping whose end was not seen yet; ``key`` is the one that waits for its value."""

    value: dict[str, Any] | list[Any]
    key: str | None = field(default=None)


def documents(content: bytes) -> list[Any]:
    """Return all documents of a file; empty ones are left out. Raises NotPlainError."""
    try:
        return [document for document in _built(content.decode("utf-8")) if document is not None]
    except NotPlainError:
        raise
    except UnicodeDecodeError:
        raise NotPlainError("is not UTF-8") from None
    except (ValueError, OverflowError):  # of the parser in Python, for an escape that is no character
        raise NotPlainError("is not YAML") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise NotPlainError(f"{where}is not YAML") from None


def _built(text: str) -> Iterator[Any]:
    open_: list[_Open] = []
    for event in yaml.parse(text, Loader=_PARSER):
        _check(event, len(open_))
        if isinstance(event, yaml.MappingStartEvent):
            open_.append(_Open({}))
        elif isinstance(event, yaml.SequenceStartEvent):
            open_.append(_Open([]))
        elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            value = _scalar(event) if isinstance(event, yaml.ScalarEvent) else open_.pop().value
            if open_:
                _put(open_[-1], value, event)
            else:
                yield value


def _check(event: yaml.Event, depth: int) -> None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise _refused(event, "anchors and aliases are not read")
    if getattr(event, "tag", None) is not None:
        raise _refused(event, "tags are not read")
    if isinstance(event, yaml.CollectionStartEvent) and depth >= MAX_DEPTH:
        raise _refused(event, f"nested more than {MAX_DEPTH} deep")


def _put(parent: _Open, value: Any, event: yaml.Event) -> None:
    if isinstance(parent.value, list):
        parent.value.append(value)
    elif parent.key is not None:
        parent.value[parent.key] = value
        parent.key = None
    elif not isinstance(value, str):
        raise _refused(event, "a name that is no text; quote it")
    elif value in parent.value:
        raise _refused(event, "a name is there twice")
    else:
        parent.key = value


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    if _SURROGATE.search(text):
        raise _refused(event, "is not YAML")
    if not event.implicit[0]:
        return text
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if text in _PERHAPS:
        raise _refused(event, "a word that not everybody reads alike; quote it")
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not re.match(r"[-+]?0[0-9]", text):
        return float(text)
    if _LIKE_A_NUMBER.fullmatch(text):
        raise _refused(event, "a number that not everybody reads alike; quote it")
    return text


def _refused(event: yaml.Event, why: str) -> NotPlainError:
    mark = event.start_mark
    return NotPlainError(f"line {mark.line + 1}: {why}" if mark else why)

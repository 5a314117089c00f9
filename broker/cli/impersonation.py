"""A kubeconfig's ``as``: the headers by which the API server lets somebody act in another's name. Pure.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

USER = "Impersonate-User"
_KEYS = ("as", "as-uid", "as-groups", "as-user-extra")
_SAFE_IN_A_HEADER_NAME = "!#$&'*+^`|"


def headers(user: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the headers for a user of a kubeconfig; the name of one may be there several times.

    Raises ValueError for what cannot be meant: it must not be taken for nobody's name, and so for the user's own, nor
    be another one when it arrives, as a header comes without the blanks around it.
    """
    given = {key: user[key] for key in _KEYS if key in user}
    if given and "as" not in given:
        raise ValueError(f"it has {', '.join(given)} without `as`: the API server takes a name first")
    return list(_headers(given))


def _headers(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, header in (("as", USER), ("as-uid", "Impersonate-Uid")):
        if key in given:
            yield header, _text(key, given[key])
    for group in _texts("as-groups", given.get("as-groups", [])):
        yield "Impersonate-Group", group
    extra = given.get("as-user-extra", {})
    if not isinstance(extra, dict):
        raise ValueError("its as-user-extra is no mapping")  # noqa: TRY004 - what is wrong is a file
    for key, values in extra.items():
        name = quote(_text("as-user-extra", key), safe=_SAFE_IN_A_HEADER_NAME)
        for value in _texts("as-user-extra", values):
            yield f"Impersonate-Extra-{name}", value


def _texts(key: str, values: Any) -> list[str]:
    if not isinstance(values, list):
        raise ValueError(f"its {key} is no list")  # noqa: TRY004 - what is wrong is a file
    return [_text(key, value) for value in values]


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"its {key} is no text: YAML takes it for something else, unless it is in quotes")  # noqa: TRY004
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(
            f"its {key} is not one line of text without blanks around it: leave it out, if nobody is meant"
        )
    return value

"""Options that several commands take: the fields of a dataclass, which a command gets as one value."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

Command = Callable[..., None]


def taking(parameter: str, kind: type[Any]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the fields of ``kind`` as options, in the place of that parameter.

    ``kind`` is a dataclass whose fields typer can read; the parameter has to be a keyword.
    """
    names = [field.name for field in fields(kind)]

    def decorated(command: Command) -> Command:
        def run(**given: Any) -> None:
            command(**{parameter: kind(**{name: given.pop(name) for name in names})}, **given)

        own = inspect.signature(command).parameters.values()
        parameters = [it for one in own for it in (_options(kind) if one.name == parameter else [one])]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {it.name: it.annotation for it in parameters}
        return run

    return decorated


def _options(kind: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]

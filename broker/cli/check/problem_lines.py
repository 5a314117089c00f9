"""What ``check`` finds, one line each."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file: with which object, what, and how to mend it. A warning would not be refused."""

    file: str
    thing: str
    what: str
    mend: str
    is_error: bool = True

    def __str__(self) -> str:
        severity = "error" if self.is_error else "warning"
        return f"{self.file}: {severity}: {': '.join(filter(None, (self.thing, self.what)))}; {self.mend}"

"""What listeners of tests answer to what is not HTTP."""

from broker.errors import Reason
from broker.http.problems import malformed


class Uncounted:
    """Metrics that nobody reads."""

    def problem(self, _reason: Reason) -> None:
        """Count nothing."""


MALFORMED = malformed(lambda: "0123456789abcdef", Uncounted())

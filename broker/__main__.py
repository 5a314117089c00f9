"""The command ``tokenbroker``."""

import sys

from broker.cli.app import build


def main() -> None:
    """Run the command that the arguments name; only that command's modules are loaded."""
    arguments = sys.argv[1:]
    build(arguments[0] if arguments else "")(prog_name="tokenbroker")


if __name__ == "__main__":
    main()

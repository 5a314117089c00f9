"""The command line: thin commands over pure parts and two adapters, ``cluster`` and ``broker_api``."""

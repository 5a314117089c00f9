"""``tokenbroker token``: tokens from a broker, for people and programs."""

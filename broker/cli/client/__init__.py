"""``tokenbroker client``: register clients, look after them, and end their tokens."""

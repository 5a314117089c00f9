"""``tokenbroker check``: manifests before they are applied, the broker's Roles, and who may do what."""

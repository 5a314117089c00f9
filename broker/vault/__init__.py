"""All that talks to Vault."""

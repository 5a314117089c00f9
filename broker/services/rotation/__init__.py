"""Copies in Vault: written, renewed before they expire, shown in the status, and removed when nobody wants them."""

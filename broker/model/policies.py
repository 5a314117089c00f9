"""Which admission policies the broker itself tries, and issues nothing without (deploy/base/policies)."""

SECRETS, TOKENS = "tokenbroker-secrets", "tokenbroker-tokens"
"""The policies that limit the broker's own Secrets and TokenRequests."""

TRIED = (SECRETS, TOKENS)

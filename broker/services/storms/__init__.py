"""What stands between many callers and the API server: turns, tokens that instances share, and rates."""

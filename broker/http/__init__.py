"""All that callers touch."""

"""``make demo``: the product, shown on a real cluster."""

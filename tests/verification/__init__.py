"""What the broker finds out about accounts and namespaces, on a cluster of its own."""

"""HTTP/1.1 to the servers that the broker calls most: the API server, and Vault."""

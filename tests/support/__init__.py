"""A real Kubernetes API server and a real Vault for tests, the demo and the benchmarks."""

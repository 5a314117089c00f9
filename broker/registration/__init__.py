"""What both registries share: how a TokenClient is read, and the memory that is decided from."""

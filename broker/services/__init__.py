"""What the broker does, written against the ports and nothing else."""

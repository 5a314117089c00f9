"""What must not work."""

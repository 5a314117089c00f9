"""What two sides promise each other."""

"""What the broker knows: values and decisions, without I/O and without a clock of their own."""

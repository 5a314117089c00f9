"""Hours of a mixed load and of faults drawn at random: nothing may be harmed, and nothing may grow."""

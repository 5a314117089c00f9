"""The programs that the broker is for, each against a real cluster, configured as its page in docs/connect says."""

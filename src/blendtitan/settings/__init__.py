"""The configuration of a run, read without torch."""

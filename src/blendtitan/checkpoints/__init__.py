"""Checkpoints on disk: what is in them, and whether they are whole. Needs no PyTorch."""

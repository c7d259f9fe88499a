"""Integers to integers: which sample has a slot. Opens no file."""

"""Sweeps: many blends of the same corpora, trained one by one, and their losses."""

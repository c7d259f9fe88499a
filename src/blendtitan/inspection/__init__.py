"""Describing shards, finding what is wrong with them, and mending what can be proved."""

"""Staging: the blocks of shards that the processes of a node keep on its own disk."""

"""Bytes to tokens: shards, file lists, the catalog."""

"""Preparation of data: text files become shards, and shards a file list."""

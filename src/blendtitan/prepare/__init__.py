"""From text files to shards, and from shards to a file list."""

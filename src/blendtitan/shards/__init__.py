"""Inspection and repair of shards: counts, complete checks, repair of index files."""

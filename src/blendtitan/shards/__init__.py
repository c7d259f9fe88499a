"""What looks at shards, or mends them: counts, complete checks, repair of index files."""

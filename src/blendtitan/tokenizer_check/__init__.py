"""Whether shards were made with the tokenizer of a run: by their records, else by their tokens."""

"""Run folders: everything that a run needs, from text and a tokenizer to training."""

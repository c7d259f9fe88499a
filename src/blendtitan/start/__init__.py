"""From text and a tokenizer to a training run: a folder with all that a run needs."""

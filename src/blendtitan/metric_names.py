"""Names of the metrics of a run. Those of a corpus have ``/CORPUS`` appended."""

LOSS = "loss_metrics/global_avg_loss"
"""Training loss of the blend. TorchTitan logs it."""

CORPUS_LOSS = "loss_metrics/loss"
"""Mean loss of a corpus's labels since the last log."""

CORPUS_LABELS = "loss_metrics/labels"
"""Number of these labels."""

VALIDATION_LOSS = "validation_metrics/loss"
"""Validation loss of the blend, which TorchTitan logs, and of each corpus."""

PERPLEXITY = "validation_metrics/perplexity"
"""Perplexity of the blend, and of each corpus."""

WAIT_SECONDS = "data/wait_seconds"
"""Time spent waiting for batches since the last log."""

SAMPLES_PER_SECOND = "data/samples_per_second"
"""Samples of all ranks per second of training steps since the last log."""

READ_RETRIES = "data/read_retries"
"""Reads retried since the last log."""

TOKENS = "data/tokens"
"""Tokens read of a corpus."""

EPOCHS = "data/epochs"
"""Epochs read of a corpus."""

SHARE = "data/share"
"""Share of a corpus in the samples so far."""

CONFIGURED_SHARE = "data/configured_share"
"""Configured share of a corpus in these samples."""

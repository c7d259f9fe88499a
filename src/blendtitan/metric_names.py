"""Names of the metrics that a run logs. A corpus's metric has ``/CORPUS`` appended."""

LOSS = "loss_metrics/global_avg_loss"
"""Loss of the blend; TorchTitan's name."""

CORPUS_LOSS = "loss_metrics/loss"
"""Mean loss of a corpus's labels since the last log."""

CORPUS_LABELS = "loss_metrics/labels"
"""Number of these labels."""

VALIDATION_LOSS = "validation_metrics/loss"
"""Validation loss of the blend, or of a corpus."""

VALIDATION_PERPLEXITY = "validation_metrics/perplexity"

WAIT_SECONDS = "data/wait_seconds"
"""Time waited for batches since the last log."""

SAMPLES_PER_SECOND = "data/samples_per_second"
"""Samples of all ranks in the time spent in training steps since the last log."""

READ_RETRIES = "data/read_retries"

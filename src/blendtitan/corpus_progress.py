"""Losses, tokens, epochs and shares of each corpus, as metrics and as tables for the log."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from blendtitan import metric_names
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.progress import configured_shares, progress
from blendtitan.order.blend import shares_of
from blendtitan.tables import Table, as_text


def loss_metrics(
    corpora: Sequence[str], losses: Sequence[float], labels: Sequence[int]
) -> dict[str, float]:
    """Metrics of the losses of corpora; corpora without labels are left out."""
    metrics: dict[str, float] = {}
    for name, loss, count in zip(corpora, losses, labels, strict=True):
        if count:
            metrics[f"{metric_names.CORPUS_LOSS}/{name}"] = loss
            metrics[f"{metric_names.CORPUS_LABELS}/{name}"] = count
    return metrics


def validation_metrics(blend: float | None, losses: Mapping[str, float]) -> dict[str, float]:
    """Validation metrics of the blend, and of corpora and sets, except the blend's loss itself."""
    metrics = {} if blend is None else {metric_names.PERPLEXITY: perplexity(blend)}
    for name, loss in losses.items():
        metrics[f"{metric_names.VALIDATION_LOSS}/{name}"] = loss
        metrics[f"{metric_names.PERPLEXITY}/{name}"] = perplexity(loss)
    return metrics


def perplexity(loss: float) -> float:
    """``exp(loss)``, or infinity if that exceeds a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


class CaughtLoss:
    """Takes the place of a metrics processor, to keep the loss instead of logging it."""

    loss = math.nan
    ntokens_since_last_log = 0

    def log_validation(self, loss: float, step: int) -> None:
        """Keep the loss from TorchTitan's validator."""
        self.loss = loss


def progress_metrics(dataset: Dataset, consumed_samples: int) -> dict[str, float]:
    """Metrics of the progress in each corpus."""
    reached = progress(dataset, consumed_samples)
    columns = {
        metric_names.TOKENS: reached.tokens,
        metric_names.EPOCHS: reached.epochs,
        metric_names.SHARE: reached.shares,
        metric_names.CONFIGURED_SHARE: reached.configured_shares,
    }
    return {
        f"{metric}/{name}": value
        for metric, values in columns.items()
        for name, value in zip(dataset.corpora, values.tolist(), strict=True)
    }


def corpus_table(dataset: Dataset, num_samples: int) -> str:
    """Tokens, share and epochs of each corpus, at the end of a run of ``num_samples`` slots."""
    end = progress(dataset, num_samples)
    table = Table(("corpus", "tokens", "share", "tokens read", "epochs"))
    columns = (dataset.corpus_tokens, end.configured_shares, end.tokens, end.epochs)
    for name, tokens, share, read, epochs in zip(dataset.corpora, *columns, strict=True):
        table.add_row(name, f"{tokens:,}", f"{share:.2%}", f"{read:,}", f"{epochs:.3g}")
    for each in dropped_corpora(dataset, num_samples):
        table.add_row(each.name, "dropped", f"{each.share:.2%}", f"{each.tokens_read:,}", "")
    return as_text(table)


class DroppedCorpus(NamedTuple):
    """A corpus that a run has read, but does not read any more."""

    name: str
    share: float
    """Configured share of all samples of the run."""
    tokens_read: int


def dropped_corpora(dataset: Dataset, num_samples: int) -> Sequence[DroppedCorpus]:
    """The dropped corpora of a run of ``num_samples`` slots."""
    history = dataset.history if isinstance(dataset, BlendedDataset) else None
    if history is None:
        return []
    names = sorted(_ever_drawn(dataset) - {*dataset.corpora})
    read_from = dataset.segments_read
    shares = configured_shares(names, read_from, num_samples, dataset.samples_before)
    counts = history.tokens_before(num_samples, names)
    return [*map(DroppedCorpus, names, shares.tolist(), counts.tolist())]


def segments_table(dataset: Dataset) -> str:
    """The first slot and the shares of each segment, including segments after the run's end."""
    table = Table(("corpus", *(f"from slot {s.first_slot:,}" for s in dataset.segments_read)))
    for name in sorted(_ever_drawn(dataset) | {*dataset.corpora}):
        shares = [shares_of(s.weights).get(name, 0.0) for s in dataset.segments_read]
        table.add_row(name, *(f"{share:.2%}" for share in shares))
    return as_text(table)


def _ever_drawn(dataset: Dataset) -> set[str]:
    """Names of the corpora of the whole run, dropped ones included."""
    return {name for segment in dataset.segments_read for name in segment.weights}

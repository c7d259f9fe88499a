"""What a run logs of each corpus: losses, tokens, epochs and shares, as metrics and tables."""

from collections.abc import Sequence

from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.progress import progress
from blendtitan.metric_names import CORPUS_LABELS, CORPUS_LOSS
from blendtitan.tables import as_text, number_table


def loss_metrics(
    corpora: Sequence[str], losses: Sequence[float], labels: Sequence[int]
) -> dict[str, float]:
    """Metrics of the losses of corpora; those that had no labels are left out."""
    found = [row for row in zip(corpora, losses, labels, strict=True) if row[2]]
    metrics: dict[str, float] = {f"{CORPUS_LOSS}/{name}": loss for name, loss, _ in found}
    return metrics | {f"{CORPUS_LABELS}/{name}": count for name, _, count in found}


def progress_metrics(dataset: Dataset, consumed_samples: int) -> dict[str, float]:
    """Metrics of how far each corpus has been read."""
    reached = progress(dataset, consumed_samples)
    columns = {
        "data/tokens": reached.tokens,
        "data/epochs": reached.epochs,
        "data/share": reached.shares,
        "data/configured_share": reached.configured_shares,
    }
    return {
        f"{metric}/{name}": value
        for metric, values in columns.items()
        for name, value in zip(dataset.corpora, values.tolist(), strict=True)
    }


def corpus_table(dataset: Dataset, num_samples: int) -> str:
    """Tokens, share and epochs of each corpus, at the end of a run of ``num_samples`` samples."""
    end = progress(dataset, num_samples)
    table = number_table("corpus", "tokens", "share", "tokens read", "epochs")
    columns = (dataset.corpus_tokens, end.configured_shares, end.tokens, end.epochs)
    for name, tokens, share, read, epochs in zip(dataset.corpora, *columns, strict=True):
        table.add_row(name, f"{tokens:,}", f"{share:.2%}", f"{read:,}", f"{epochs:.3g}")
    return as_text(table)


def segments_table(dataset: Dataset) -> str:
    """The first slot and the shares of each segment, those behind the run among them."""
    table = number_table("corpus", *(f"from slot {s.first_slot:,}" for s in dataset.segments_read))
    for name in dataset.corpora:
        shares = [s.weights.get(name, 0.0) / sum(s.weights.values()) for s in dataset.segments_read]
        table.add_row(name, *(f"{share:.2%}" for share in shares))
    return as_text(table)

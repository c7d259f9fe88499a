"""What a run will read, from its configuration alone: pure arithmetic, no training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import SPLITS
from blendtitan.dataset.build import Datasets
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.progress import progress
from blendtitan.errors import ConfigError
from blendtitan.runs.plan_rows import RowReads, row_reads
from blendtitan.runs.plan_warnings import plan_warnings
from blendtitan.runs.run import Run, data_of_run
from blendtitan.storage.catalog import Catalog
from blendtitan.tokenizer_check.run import TokenizerCheck
from blendtitan.visible import quietly


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusPlan:
    """One corpus of the train split, at the end of the run."""

    name: str
    shards: int
    documents: int
    tokens: int
    """Inserted EODs included."""

    weight: float
    """As the file list has it."""

    share: float
    """Of all samples of the run, as its segments ask for it."""

    tokens_read: int
    epochs: float
    windows: int
    """Windows of one epoch."""

    steps_per_epoch: float | None
    """Steps that read as many samples as it has windows, at its share; None: never drawn."""

    tokens_unused: int | None
    """Tokens of windows that the run does not reach; None where the order does not tell."""

    bytes_read: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentPlan:
    """A stretch of the run with constant shares. Tuples have one entry for each corpus."""

    first_slot: int
    stop_slot: int
    """The first slot after it, or the end of the run."""

    steps_before: float
    """Steps before it; not whole where it begins within one."""

    shares: tuple[float, ...]
    epochs: tuple[float, ...]
    """Of each corpus, at the segment's end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitPlan:
    """One split, of all corpora together."""

    name: str
    corpora: int
    documents: int
    tokens: int
    windows: int
    """Samples of one pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """What a run will read."""

    run: Run
    corpora: tuple[CorpusPlan, ...]
    segments: tuple[SegmentPlan, ...]
    splits: tuple[SplitPlan, ...]
    steps_per_epoch: float
    """Steps that read as many samples as all corpora together have windows."""

    warnings: tuple[str, ...]


def plan_run(run: Run) -> RunPlan:
    """What a run will read, if it is never changed; errors as ``data_of_run``.

    Raises:
        TokenizerMismatchError: Shards were made with another tokenizer than the run's.
    """
    check, check_warnings = _tokenizer_check(run)
    catalog, datasets, train = data_of_run(run, check=check)
    check_warnings += check.warnings if check else []
    reads = row_reads(train, catalog, run.num_samples)
    corpora = tuple(_corpora(run, train, catalog, reads))
    with quietly():  # the other splits are built when they are asked for
        return RunPlan(
            run=run,
            corpora=corpora,
            segments=tuple(_segments(run, train)),
            splits=tuple(_splits(datasets, catalog)),
            steps_per_epoch=train.num_windows / run.global_batch_size,
            warnings=(*check_warnings, *plan_warnings(run, datasets, catalog, reads)),
        )


def _tokenizer_check(run: Run) -> tuple[TokenizerCheck | None, list[str]]:
    """What compares the shards with the run's tokenizer, or why they are not compared."""
    try:
        tokenizer = run.tokenizer()
    except (ConfigError, NotImplementedError) as error:
        return None, [
            f"the shards were not compared with the tokenizer, which cannot be read: {error}"
        ]
    return TokenizerCheck(run.blend, tokenizer, action=run.tokenizer_check), []


def _corpora(
    run: Run, train: Dataset, catalog: Catalog, reads: RowReads | None
) -> Sequence[CorpusPlan]:
    end = progress(train, run.num_samples)
    documents = np.diff(catalog.document_cuts)[:, 0]
    of_corpus = np.array(catalog.corpora)
    found: list[CorpusPlan] = []
    for i, name in enumerate(train.corpora):
        own = of_corpus == name
        windows = train.only(name).num_windows
        samples = float(end.configured_shares[i]) * run.global_batch_size
        found.append(
            CorpusPlan(
                name=name,
                shards=int((own & (catalog.split_tokens(0) > 0)).sum()),
                documents=int(documents[own].sum()),
                tokens=int(train.corpus_tokens[i]),
                weight=float(catalog.weights[own].sum()),
                share=float(end.configured_shares[i]),
                tokens_read=int(end.tokens[i]),
                epochs=float(end.epochs[i]),
                windows=windows,
                steps_per_epoch=windows / samples if samples else None,
                tokens_unused=None if reads is None else int(reads.unused(i)),
                bytes_read=_bytes_read(train, catalog, reads, i, int(end.tokens[i])),
            )
        )
    return found


def _bytes_read(
    train: Dataset, catalog: Catalog, reads: RowReads | None, corpus: int, tokens: int
) -> int:
    """Bytes of the shards that the samples of a corpus are read from, neighbours' token twice."""
    if reads is not None:
        return int(reads.bytes_read(corpus))
    own = np.array(catalog.corpora) == train.corpora[corpus]
    sizes = np.array([catalog.dtype(int(shard)).itemsize for shard in np.flatnonzero(own)])
    samples = tokens // train.config.seq_length
    return round((tokens + samples) * float(np.average(sizes, weights=catalog.weights[own])))


def _segments(run: Run, train: Dataset) -> Sequence[SegmentPlan]:
    segments = [s for s in train.segments_read if s.first_slot < max(1, run.num_samples)]
    stops = [*(segment.first_slot for segment in segments[1:]), run.num_samples]
    return [
        SegmentPlan(
            first_slot=segment.first_slot,
            stop_slot=stop,
            steps_before=segment.first_slot / run.global_batch_size,
            shares=_shares(train, segment.weights),
            epochs=tuple(progress(train, stop).epochs.tolist()),
        )
        for segment, stop in zip(segments, stops, strict=True)
    ]


def _shares(train: Dataset, weights: Mapping[str, float]) -> tuple[float, ...]:
    total = sum(weights.values())
    return tuple(weights.get(name, 0.0) / total for name in train.corpora)


def _splits(datasets: Datasets, catalog: Catalog) -> Sequence[SplitPlan]:
    documents: NDArray[np.int64] = np.diff(catalog.document_cuts).sum(axis=0)
    found = zip(SPLITS, (datasets.train, datasets.valid, datasets.test), strict=True)
    return [
        SplitPlan(
            name=name,
            corpora=len(dataset.corpora) if dataset else 0,
            documents=int(documents[s]),
            tokens=int(catalog.split_tokens(s).sum()),
            windows=dataset.num_windows if dataset else 0,
        )
        for s, (name, dataset) in enumerate(found)
    ]

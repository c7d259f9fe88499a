"""What a run will read, from its configuration alone, without training: ``blendtitan plan``."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import SPLITS
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.build import Datasets
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.progress import progress
from blendtitan.errors import ConfigError
from blendtitan.history.phases import pasts_at
from blendtitan.history.run import phases_of, settings_of
from blendtitan.order.blend import shares_of
from blendtitan.runs.open import RunConfig, data_of_run
from blendtitan.runs.plan_warnings import plan_warnings
from blendtitan.storage.catalog import Catalog
from blendtitan.tables import Table, filled_table
from blendtitan.tokenizer_check.run import TokenizerCheck
from blendtitan.visible import quietly

IntArray = NDArray[np.int64]


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
    """Tokens of windows that the run does not reach; None: unknown in this order."""

    bytes_read: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentPlan:
    """A stretch of the run with constant shares. Tuples have one entry for each corpus."""

    first_slot: int
    stop_slot: int
    """The first slot after it, or the end of the run."""

    steps_before: float
    """Steps before it; not whole if it begins within a step."""

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
    """Samples of one epoch."""


@dataclass(frozen=True, slots=True)
class RowReads:
    """The rows of all corpora at the end of a run. Arrays have the shape ``(R,)``."""

    seq_len: int
    corpora: IntArray
    """Number of each row's corpus."""

    tokens: IntArray
    draws: IntArray
    """Samples that the run takes from the row."""

    token_bytes: NDArray[np.float64]
    """Bytes of one token of the row, on average over its shards."""

    @property
    def num_short(self) -> int:
        """Rows shorter than a window, whose only window repeats tokens."""
        return int((self.tokens <= self.seq_len).sum())

    def unused(self, corpus: int) -> int:
        """Tokens of a corpus that no sample of the run predicts.

        A row whose first epoch is complete counts as used: the few tokens that its windows left
        over come with the shift of later epochs.
        """
        own = self.corpora == corpus
        left = self.tokens[own] - 1 - self.draws[own] * self.seq_len
        return int(np.where(left >= self.seq_len, left, 0).sum())

    def bytes_read(self, corpus: int) -> int:
        """Bytes of a corpus's samples of ``seq_len + 1`` tokens; repeated reads count again."""
        own = self.corpora == corpus
        samples = self.draws[own] * (self.seq_len + 1)
        return round(float((samples * self.token_bytes[own]).sum()))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """What a run will read."""

    run: RunConfig
    corpora: tuple[CorpusPlan, ...]
    segments: tuple[SegmentPlan, ...]
    splits: tuple[SplitPlan, ...]
    steps_per_epoch: float
    """Steps that read as many samples as all corpora together have windows."""

    warnings: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return self.run.num_samples * self.run.blend.seq_length

    @property
    def bytes_read(self) -> int:
        """Bytes of all samples."""
        return sum(corpus.bytes_read for corpus in self.corpora)

    def headline(self) -> str:
        """The run in one line."""
        run = self.run
        return (
            f"{run.steps:,} steps of {run.global_batch_size:,} samples of "
            f"{run.blend.seq_length:,} tokens: {run.num_samples:,} samples, {self.tokens:,} "
            f"tokens, {_size(self.bytes_read)} to read. One epoch is {self.steps_per_epoch:,.1f} "
            f"steps."
        )

    def lines(self) -> Iterator[str | Table]:
        """The plan for people: corpora, segments if there are several, splits, warnings."""
        yield from (self.headline(), "", _corpus_table(self), "")
        if len(self.segments) > 1:
            yield from (_segment_table(self), "")
        yield filled_table(
            ("split", "corpora", "documents", "tokens", "samples"),
            ([s.name, s.corpora, s.documents, s.tokens, s.windows] for s in self.splits),
        )
        if self.warnings:
            yield from ("", "Warnings:", *(f"- {warning}" for warning in self.warnings))

    def json(self) -> dict[str, Any]:
        """The plan for programs."""
        run, names = self.run, [corpus.name for corpus in self.corpora]
        return {
            "config": str(run.path),
            "steps": run.steps,
            "global_batch_size": run.global_batch_size,
            "seq_length": run.blend.seq_length,
            "samples": run.num_samples,
            "tokens": self.tokens,
            "bytes_read": self.bytes_read,
            "steps_per_epoch": self.steps_per_epoch,
            "corpora": [asdict(corpus) for corpus in self.corpora],
            "segments": [
                asdict(segment)
                | {
                    "shares": dict(zip(names, segment.shares, strict=True)),
                    "epochs": dict(zip(names, segment.epochs, strict=True)),
                }
                for segment in self.segments
            ],
            "splits": [asdict(split) for split in self.splits],
            "warnings": list(self.warnings),
        }


def plan_run(run: RunConfig) -> RunPlan:
    """What a run will read, if it is never changed; errors as ``data_of_run``.

    Raises:
        TokenizerMismatchError: Shards were made with another tokenizer than the run's.
    """
    check, check_warnings = None, ()
    try:
        check = TokenizerCheck(run.blend, run.tokenizer(), action=run.tokenizer_check)
    except (ConfigError, NotImplementedError) as error:
        check_warnings = (
            f"the shards were not compared with the tokenizer, which cannot be read: {error}",
        )
    catalog, datasets, train = data_of_run(run, check=check)
    reads = row_reads(train, catalog, run.num_samples)
    rows = reads and (reads.num_short, len(reads.tokens))
    corpora = tuple(_corpora(run, train, catalog, reads))
    with quietly():  # the other splits are built when they are asked for
        return RunPlan(
            run=run,
            corpora=corpora,
            segments=tuple(_segments(run, train)),
            splits=tuple(_splits(datasets, catalog)),
            steps_per_epoch=train.num_windows / run.global_batch_size,
            warnings=(
                *(check.warnings if check else check_warnings),
                *plan_warnings(run, datasets, catalog, rows),
                *_unused_warnings(corpora),
            ),
        )


def row_reads(dataset: Dataset, catalog: Catalog, num_samples: int) -> RowReads | None:
    """The rows of a dataset after so many samples; None in an order without rows."""
    if not isinstance(dataset, BlendedDataset):
        return None
    (phase,) = phases_of(dataset)
    settings = settings_of(dataset)
    pasts = pasts_at(phase, settings, num_samples)
    tokens = catalog.split_tokens(SPLITS.index(dataset.split))
    of_corpus = np.array(catalog.corpora)
    sizes = np.array([catalog.dtype(shard).itemsize for shard in range(len(tokens))])
    row_tokens: list[int] = []
    row_bytes: list[float] = []
    draws: list[int] = []
    for name, shards in phase.corpora.items():
        own = np.flatnonzero((of_corpus == name) & (tokens > 0))
        for row in shards.row_slices(blended=settings.blended):
            row_tokens.append(int(tokens[own[row]].sum()))
            row_bytes.append(float(np.average(sizes[own[row]], weights=tokens[own[row]])))
        draws += [past[-1][1] if past else 0 for past in pasts[name][1]]
    return RowReads(
        seq_len=phase.seq_len,
        corpora=dataset.order.row_corpora,
        tokens=np.array(row_tokens, np.int64),
        draws=np.array(draws, np.int64),
        token_bytes=np.array(row_bytes, np.float64),
    )


def _corpora(
    run: RunConfig, train: Dataset, catalog: Catalog, reads: RowReads | None
) -> Iterator[CorpusPlan]:
    end = progress(train, run.num_samples)
    documents = np.diff(catalog.document_cuts)[:, 0]
    of_corpus = np.array(catalog.corpora)
    for i, name in enumerate(train.corpora):
        own = of_corpus == name
        windows = train.only(name).num_windows
        share, tokens_read = float(end.configured_shares[i]), int(end.tokens[i])
        samples = share * run.global_batch_size
        yield CorpusPlan(
            name=name,
            shards=int((own & (catalog.split_tokens(0) > 0)).sum()),
            documents=int(documents[own].sum()),
            tokens=int(train.corpus_tokens[i]),
            weight=float(catalog.weights[own].sum()),
            share=share,
            tokens_read=tokens_read,
            epochs=float(end.epochs[i]),
            windows=windows,
            steps_per_epoch=windows / samples if samples else None,
            tokens_unused=None if reads is None else reads.unused(i),
            bytes_read=_average_bytes(train, catalog, own, tokens_read)
            if reads is None
            else reads.bytes_read(i),
        )


def _average_bytes(train: Dataset, catalog: Catalog, own: NDArray[np.bool_], tokens: int) -> int:
    """Bytes of a corpus's samples where rows are unknown; neighbours' common token twice."""
    sizes = np.array([catalog.dtype(int(shard)).itemsize for shard in np.flatnonzero(own)])
    samples = tokens // train.config.seq_length
    return round((tokens + samples) * float(np.average(sizes, weights=catalog.weights[own])))


def _segments(run: RunConfig, train: Dataset) -> Iterator[SegmentPlan]:
    segments = [s for s in train.segments_read if s.first_slot < max(1, run.num_samples)]
    stops = [*(segment.first_slot for segment in segments[1:]), run.num_samples]
    for segment, stop in zip(segments, stops, strict=True):
        shares = shares_of(segment.weights)
        yield SegmentPlan(
            first_slot=segment.first_slot,
            stop_slot=stop,
            steps_before=segment.first_slot / run.global_batch_size,
            shares=tuple(shares.get(name, 0.0) for name in train.corpora),
            epochs=tuple(progress(train, stop).epochs.tolist()),
        )


def _splits(datasets: Datasets, catalog: Catalog) -> Iterator[SplitPlan]:
    documents: IntArray = np.diff(catalog.document_cuts).sum(axis=0)
    found = zip(SPLITS, (datasets.train, datasets.valid, datasets.test), strict=True)
    for s, (name, dataset) in enumerate(found):
        yield SplitPlan(
            name=name,
            corpora=len(dataset.corpora) if dataset else 0,
            documents=int(documents[s]),
            tokens=int(catalog.split_tokens(s).sum()),
            windows=dataset.num_windows if dataset else 0,
        )


def _unused_warnings(corpora: Sequence[CorpusPlan]) -> Iterator[str]:
    unused = [
        f"{corpus.name} {corpus.tokens_unused / corpus.tokens:.1%}"
        for corpus in corpora
        if corpus.tokens_unused
    ]
    if unused:
        yield f"tokens that the run does not reach: {', '.join(unused)}"


def _corpus_table(plan: RunPlan) -> Table:
    headings = (
        *("corpus", "shards", "documents", "tokens", "share"),
        *("tokens read", "epochs", "steps/epoch", "unused", "to read"),
    )
    rows = (
        [
            *(c.name, c.shards, c.documents, c.tokens, f"{c.share:.2%}"),
            *(c.tokens_read, f"{c.epochs:.3g}"),
            None if c.steps_per_epoch is None else f"{c.steps_per_epoch:,.1f}",
            *(c.tokens_unused, _size(c.bytes_read)),
        ]
        for c in plan.corpora
    )
    return filled_table(headings, rows)


def _segment_table(plan: RunPlan) -> Table:
    headings = [
        heading
        for segment in plan.segments
        for heading in (f"after step {segment.steps_before:,.6g}", "epochs at its end")
    ]
    rows = (
        [
            corpus.name,
            *(
                cell
                for segment in plan.segments
                for cell in (f"{segment.shares[i]:.2%}", f"{segment.epochs[i]:.3g}")
            ),
        ]
        for i, corpus in enumerate(plan.corpora)
    )
    return filled_table(["corpus", *headings], rows)


def _size(num_bytes: int) -> str:
    """A number of bytes with three digits and a unit."""
    size, units = float(num_bytes), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"

"""The samples of a run, from its configuration alone, without training: ``blendtitan plan``."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.batch_schedule import listed_sizes, size_changes, steps_before
from blendtitan.config import SPLITS
from blendtitan.corpus_progress import DroppedCorpus, dropped_corpora
from blendtitan.dataset.build import Datasets
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.progress import progress
from blendtitan.errors import BlendTitanError, ConfigError
from blendtitan.history.skips import saved_skips, skips_of
from blendtitan.order.blend import Segment, shares_of
from blendtitan.runs.checkpoints import StoredState, steps_beyond
from blendtitan.runs.likely_mistakes import likely_mistakes, stopping
from blendtitan.runs.open import RunConfig, data_of_run, data_of_set
from blendtitan.runs.predictions import Asked, Prediction, predicted
from blendtitan.runs.resumed import planned_from
from blendtitan.runs.row_reads import RowReads, row_reads, size_of, token_bytes
from blendtitan.storage.catalog import Catalog
from blendtitan.tables import Table
from blendtitan.tokenizer_check.run import TokenizerCheck
from blendtitan.visible import counted, quietly

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
    """Weight in the file list."""
    share: float
    """Configured share of all samples of the run, over all its segments."""
    tokens_read: int
    epochs: float
    windows: int
    """Windows of one epoch."""
    steps_per_epoch: float | None
    """Steps of one epoch at the corpus's share at the end of the run; None: it is 0."""
    tokens_unused: int | None
    """Tokens of windows that the run does not reach; None: unknown in this order or run."""
    bytes_read: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentPlan:
    """A stretch of the run with constant shares."""

    first_slot: int
    stop_slot: int
    """The first slot after it, or the end of the run."""
    steps_before: float
    """Steps before it; not whole if it begins within a step."""
    shares: dict[str, float]
    epochs: dict[str, float]
    """Epochs of each corpus at the segment's end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitPlan:
    """One split, of all corpora together, or a validation set."""

    name: str
    corpora: int
    documents: int
    tokens: int
    windows: int
    """Samples of one epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """The plan of a run."""

    run: RunConfig
    train: Dataset
    about: str  # a sentence, if the run continues from a checkpoint and was changed
    corpora: tuple[CorpusPlan, ...]
    dropped: tuple[DroppedCorpus, ...]
    segments: tuple[SegmentPlan, ...]
    splits: tuple[SplitPlan, ...]
    steps_per_epoch: float
    """Steps for which all corpora together have windows, each of them read once."""
    warnings: tuple[str, ...]
    predictions: Mapping[str, Prediction]
    """By their keys in JSON."""

    @property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return self.run.num_samples * self.run.blend.seq_length

    @property
    def bytes_read(self) -> int:
        """Bytes of all samples; of dropped corpora, whose shards are unknown, as of the others."""
        known = sum(corpus.bytes_read for corpus in self.corpora)
        tokens = sum(corpus.tokens_read for corpus in self.corpora)
        return round(known * self.tokens / tokens) if self.dropped and tokens else known

    def headline(self) -> tuple[str, str]:
        """The run in two sentences."""
        run = self.run
        sizes = listed_sizes(run.schedule, run.steps)
        return (
            f"{counted(run.steps, 'step')} of {sizes} sample{'' if sizes == '1' else 's'} of "
            f"{run.blend.seq_length:,} tokens: {counted(run.num_samples, 'sample')}, "
            f"{self.tokens:,} tokens, {size_of(self.bytes_read)} to read.",
            f"In the train split, all corpora together have windows for "
            f"{self.steps_per_epoch:,.1f} steps.",
        )

    def lines(self) -> Iterator[str | Table]:
        """The plan as text: corpora, segments if there are several, splits, warnings."""
        yield from (*self.headline(), *filter(None, [self.about]), "", _corpus_table(self), "")
        if len(self.segments) > 1:
            yield from (_segment_table(self), "")
        yield Table(
            ("split", "corpora", "documents", "tokens", "samples"),
            ([s.name, s.corpora, s.documents, s.tokens, s.windows] for s in self.splits),
        )
        if self.run.skipped:
            yield from ("", "Skipped:", *(f"- {each}" for each in self.run.skipped))
        for each in self.predictions.values():
            yield from ("", each.sentence())
        if self.warnings:
            yield from ("", "Warnings:", *(f"- {warning}" for warning in self.warnings))

    def json(self) -> dict[str, Any]:
        """The plan as JSON."""
        run = self.run
        return {
            "config": str(run.path),
            "steps": run.steps,
            "global_batch_size": run.global_batch_size,
            "batch_schedule": [
                {"from_step": step, "global_batch_size": size}
                for step, size in size_changes(run.schedule, max(1, run.steps))
            ],
            "seq_length": run.blend.seq_length,
            "samples": run.num_samples,
            "tokens": self.tokens,
            "bytes_read": self.bytes_read,
            "steps_per_epoch": self.steps_per_epoch,
            "corpora": list(map(asdict, self.corpora)),
            **({"about": self.about} if self.about else {}),
            **({"dropped": [each._asdict() for each in self.dropped]} if self.dropped else {}),
            "segments": list(map(asdict, self.segments)),
            "splits": list(map(asdict, self.splits)),
            **{key: asdict(each) for key, each in self.predictions.items()},
            "warnings": list(self.warnings),
            **({"skipped": saved_skips(self.run.skipped)} if self.run.skipped else {}),
        }


def plan_run(
    run: RunConfig, *, asked: Asked | None = None, stored: StoredState | None = None
) -> RunPlan:
    """Plan a run; errors as ``data_of_run`` and ``predicted``.

    ``stored`` is the checkpoint from which it continues. None: it is a new run.

    Raises:
        TokenizerMismatchError: Shards were made with another tokenizer than the run's.
    """
    check, warning = None, ""
    try:
        check = TokenizerCheck(run.blend, run.tokenizer(), action=run.tokenizer_check)
    except (ConfigError, NotImplementedError) as error:
        warning = f"the shards were not compared with the tokenizer, which cannot be read: {error}"
    catalog, datasets, new = data_of_run(run, check=check)
    train, about, change = planned_from(run, new, stored)
    reads = row_reads(train, catalog, run.stop_slot)
    predictions = predicted(run, new, asked or Asked())
    if about and predictions:
        about += " The predictions are of a new run with the current settings."
    with quietly():  # the other splits are built on demand
        sets, faults = _validation_sets(run, catalog) if run.validates else ([], [])
        return RunPlan(
            run=run,
            train=train,
            about=about,
            corpora=tuple(_corpora(run, train, catalog, reads)),
            dropped=tuple(dropped_corpora(train, run.stop_slot)),
            segments=tuple(_segments(run, train)),
            splits=(*_splits(datasets, catalog), *sets),
            steps_per_epoch=run.steps_of(train.num_windows),
            warnings=(
                *filter(None, [steps_beyond(run.path, run.output, run.steps), change]),
                *(check.warnings if check else [warning]),
                *faults,
                *likely_mistakes(run, train, datasets, catalog),
            ),
            predictions=predictions,
        )


def _corpora(
    run: RunConfig, train: Dataset, catalog: Catalog, reads: RowReads | None
) -> Iterator[CorpusPlan]:
    end = progress(train, run.stop_slot)
    last_shares = shares_of(_segments_of(run, train)[-1].weights)
    of_corpus, documents = np.array(catalog.corpora), np.diff(catalog.document_cuts)[:, 0]
    sizes = token_bytes(catalog) if reads is None else None
    for i, name in enumerate(train.corpora):
        own = of_corpus == name
        windows = train.only(name).num_windows
        last_share, tokens_read = last_shares.get(name, 0.0), int(end.tokens[i])
        if reads is None:  # neighbours' common token twice
            assert sizes is not None
            each = float(np.average(sizes[own], weights=catalog.weights[own]))
            unused, num_bytes = None, (tokens_read + tokens_read // run.blend.seq_length) * each
        else:
            of_rows = reads.corpora == i
            unused, num_bytes = int(reads.unused[of_rows].sum()), reads.num_bytes[of_rows].sum()
        yield CorpusPlan(
            name=name,
            shards=int((own & (catalog.split_tokens(0) > 0)).sum()),
            documents=int(documents[own].sum()),
            tokens=int(train.corpus_tokens[i]),
            weight=float(catalog.weights[own].sum()),
            share=float(end.configured_shares[i]),
            tokens_read=tokens_read,
            epochs=float(end.epochs[i]),
            windows=windows,
            steps_per_epoch=run.steps_of(round(windows / last_share)) if last_share else None,
            tokens_unused=unused,
            bytes_read=round(float(num_bytes)),
        )


def _segments_of(run: RunConfig, train: Dataset) -> list[Segment]:
    return [s for s in train.segments_read if s.first_slot < max(1, run.stop_slot)]


def _segments(run: RunConfig, train: Dataset) -> Iterator[SegmentPlan]:
    segments = _segments_of(run, train)
    stops = [*(segment.first_slot for segment in segments[1:]), run.stop_slot]
    names = [*train.corpora, *(each.name for each in dropped_corpora(train, run.stop_slot))]
    for segment, stop in zip(segments, stops, strict=True):
        shares, epochs = shares_of(segment.weights), progress(train, stop).epochs.tolist()
        yield SegmentPlan(
            first_slot=segment.first_slot,
            stop_slot=stop,
            steps_before=steps_before(run.schedule, segment.first_slot, skips_of(run.skipped)),
            shares={name: shares.get(name, 0.0) for name in names},
            epochs=dict(zip(train.corpora, epochs, strict=True)),
        )


def _splits(datasets: Datasets, catalog: Catalog) -> Iterator[SplitPlan]:
    found = zip(SPLITS, (datasets.train, datasets.valid, datasets.test), strict=True)
    for s, (name, dataset) in enumerate(found):
        yield _split(name, dataset, catalog, s)


def _split(name: str, dataset: Dataset | None, catalog: Catalog, s: int) -> SplitPlan:
    return SplitPlan(
        name=name,
        corpora=len(dataset.corpora) if dataset else 0,
        documents=int(np.diff(catalog.document_cuts)[:, s].sum()),
        tokens=int(catalog.split_tokens(s).sum()),
        windows=dataset.num_windows if dataset else 0,
    )


def _validation_sets(run: RunConfig, training: Catalog) -> tuple[list[SplitPlan], list[str]]:
    """The validation sets of a run, and the errors of those that cannot be used."""
    sets: list[SplitPlan] = []
    faults: list[str] = []
    for each in run.validation_sets:
        try:
            valid = data_of_set(each, run, training).valid
        except (BlendTitanError, OSError) as error:
            faults.append(stopping(error))
            continue
        assert valid is not None
        sets.append(_split(each.name, valid, valid.catalog, SPLITS.index("valid")))
    return sets, faults


def _corpus_table(plan: RunPlan) -> Table:
    headings = (
        *("corpus", "shards", "documents", "tokens", "share"),
        *("tokens read", "epochs", "steps/epoch", "unused", "to read"),
    )
    rows = [
        [
            *(c.name, c.shards, c.documents, c.tokens, f"{c.share:.2%}"),
            *(c.tokens_read, f"{c.epochs:.3g}"),
            None if c.steps_per_epoch is None else f"{c.steps_per_epoch:,.1f}",
            *(c.tokens_unused, size_of(c.bytes_read)),
        ]
        for c in plan.corpora
    ]
    for name, share, tokens_read in plan.dropped:
        rows.append([name, "dropped", None, None, f"{share:.2%}", tokens_read, *[None] * 4])
    return Table(headings, rows)


def _segment_table(plan: RunPlan) -> Table:
    headings, columns = ["corpus"], [[each.name for each in (*plan.corpora, *plan.dropped)]]
    for segment in plan.segments:
        headings += [f"after step {segment.steps_before:,.6g}", "epochs at its end"]
        columns.append([f"{share:.2%}" for share in segment.shares.values()])
        epochs = [f"{epochs:.3g}" for epochs in segment.epochs.values()]
        columns.append([*epochs, *[""] * len(plan.dropped)])
    return Table(headings, zip(*columns, strict=True))

"""What a report says of a run: gathered once, before anything is drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blendtitan.dataset.progress import configured_shares
from blendtitan.errors import ConfigError
from blendtitan.metric_names import SAMPLES_PER_SECOND, WAIT_SECONDS
from blendtitan.pace import Paces, consumed_at
from blendtitan.run.toml import read_toml, toml_of
from blendtitan.runs.report.blend_curve import BlendCurve, blend_curve, steps_before
from blendtitan.runs.report.lengths import CorpusLens, corpus_lens
from blendtitan.runs.report.texts import SampleText, sample_texts
from blendtitan.runs.run import Run
from blendtitan.runs.scalars import Scalars, read_scalars
from blendtitan.runs.slots import step_slots
from blendtitan.runs.source import Source, open_source


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusFacts:
    """One corpus."""

    name: str
    shards: int | None
    """With documents for training; None: the data is not there. Likewise the documents."""

    documents: int | None
    tokens: int
    """In the train split, inserted EODs included."""

    configured: float
    """Share of the samples that the segments ask for: so far, or of the whole run before it."""

    achieved: float
    """Share of these samples that is of the corpus."""

    tokens_read: int
    """So far, as are the epochs."""

    epochs: float
    tokens_at_end: int
    epochs_at_end: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """One run."""

    name: str
    run: Run
    about: str
    """Where the order comes from."""

    num_samples: int
    tokens_at_end: int
    last_step: int
    """Steps of the whole run."""

    reached_step: int
    """Steps that were trained, as far as checkpoints and metrics tell; 0: none."""

    curve: BlendCurve
    corpora: tuple[CorpusFacts, ...]
    """In the order of the curve's."""

    metrics: Mapping[str, Scalars]
    """Empty: none was logged."""

    waited: float | None
    """Fraction of the time in training steps that was waited for data; None: not logged."""

    lens: Mapping[str, CorpusLens]
    """By corpus; empty: the data is not there."""

    samples: tuple[SampleText, ...]
    samples_step: int
    """The step from which on samples were taken."""

    settings: Mapping[str, str]
    """``section.key`` of the TOML file, and the value as TOML has it."""


def gather_runs(
    paths: Sequence[Path], *, step: int = 1, ranks: int | None = None
) -> tuple[RunFacts, ...]:
    """What there is to say of some runs; see ``gather_run``.

    They are called by their folders or files, or by their paths where these are alike.
    """
    short = [path.absolute().name if path.is_dir() else path.stem for path in paths]
    names = short if len(set(short)) == len(paths) else list(map(str, paths))
    return tuple(
        gather_run(path, name=name, step=step, ranks=ranks)
        for path, name in zip(paths, names, strict=True)
    )


def gather_run(path: Path, *, name: str, step: int = 1, ranks: int | None = None) -> RunFacts:
    """What there is to say of a run.

    Args:
        path: TOML file of a run, or its folder, whose checkpoints and TensorBoard files count.
        name: What the run is called in the report.
        step: Samples are taken from this step on.
        ranks: Data-parallel ranks, where the configuration leaves the steps' samples open.

    Raises:
        ConfigError: The configuration cannot be used, or there is no such step.
        ResumeError: A checkpoint cannot be read.
        ShardError: A shard is damaged.
    """
    source = open_source(path, ranks=ranks)
    run, slots = source.run, source.slots
    assert run is not None
    metrics = _metrics(path)
    trained = steps_before(slots.paces, source.consumed_samples)
    reached = max([int(trained), *(int(each.steps[-1]) for each in metrics.values())])
    num_samples = max(1, source.num_samples, consumed_at(slots.paces, reached))
    curve = blend_curve(slots, num_samples)
    return RunFacts(
        name=name,
        run=run,
        about=source.about,
        num_samples=num_samples,
        tokens_at_end=sum(slots.tokens_before(num_samples).values()),
        last_step=round(steps_before(slots.paces, num_samples)),
        reached_step=reached,
        curve=curve,
        corpora=_corpora(source, curve.corpora, num_samples, consumed_at(slots.paces, reached)),
        metrics=metrics,
        waited=_waited(metrics, slots.paces),
        lens={} if source.contents is None else corpus_lens(source.contents),
        samples=sample_texts(source, step_slots(slots.paces, step).start),
        samples_step=step,
        settings={key: toml_of(value) for key, value in read_toml(run.path).items()},
    )


def _metrics(path: Path) -> Mapping[str, Scalars]:
    """What a run logged; nothing of a TOML file, or where there are no TensorBoard files."""
    if not path.is_dir():
        return {}
    try:
        return read_scalars(path)
    except ConfigError:
        return {}


def _waited(metrics: Mapping[str, Scalars], paces: Paces) -> float | None:
    """Time waited in all intervals between logs, of the time that their samples took."""
    waits, speeds = metrics.get(WAIT_SECONDS), metrics.get(SAMPLES_PER_SECOND)
    if waits is None or speeds is None or waits.steps.tolist() != speeds.steps.tolist():
        return None
    consumed = np.array([consumed_at(paces, step) for step in waits.steps.tolist()])
    seconds = float((np.diff(consumed, prepend=0) / speeds.values).sum())
    return float(waits.values.sum()) / seconds if seconds > 0 else None


def _corpora(
    source: Source, names: Sequence[str], num_samples: int, consumed: int
) -> tuple[CorpusFacts, ...]:
    slots, now = source.slots, consumed or num_samples
    asked = configured_shares(names, slots.segments, now)
    drawn, read = slots.draws_before(now), slots.tokens_before(consumed)
    at_end, tokens = slots.tokens_before(num_samples), slots.corpus_tokens
    shards, documents = _held(source)
    return tuple(
        CorpusFacts(
            name=name,
            shards=shards.get(name),
            documents=documents.get(name),
            tokens=tokens[name],
            configured=float(asked[i]),
            achieved=drawn[name] / now,
            tokens_read=read[name],
            epochs=read[name] / max(1, tokens[name]),
            tokens_at_end=at_end[name],
            epochs_at_end=at_end[name] / max(1, tokens[name]),
        )
        for i, name in enumerate(names)
    )


def _held(source: Source) -> tuple[dict[str, int], dict[str, int]]:
    """Shards and documents of each corpus in the split, where the data is there."""
    shards: dict[str, int] = {}
    documents: dict[str, int] = {}
    if source.contents is None:
        return shards, documents
    catalog, split = source.contents.catalog, source.contents.rows.split
    counts = np.diff(catalog.document_cuts)[:, split].tolist()
    for shard in source.contents.rows.piece_shards.tolist():
        name = catalog.corpora[shard]
        shards[name] = shards.get(name, 0) + 1
        documents[name] = documents.get(name, 0) + counts[shard]
    return shards, documents


def whose(runs: Sequence[RunFacts], run: RunFacts) -> str:
    """What begins a sentence about one of several runs."""
    return f"{run.name}: " if len(runs) > 1 else ""

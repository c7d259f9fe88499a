"""The facts that a report shows about a run, gathered once before drawing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blendtitan.batch_schedule import BatchSchedule, consumed_at, samples_of, steps_before
from blendtitan.dataset.progress import configured_shares
from blendtitan.dataset.removed import Removal
from blendtitan.history.skips import SkippedStretch
from blendtitan.metric_names import SAMPLES_PER_SECOND, WAIT_SECONDS
from blendtitan.order.blend import shares_of
from blendtitan.runs.open import OpenRun, RunConfig, data_of_run, open_run
from blendtitan.runs.report.documents import (
    CorpusLengths,
    SampleText,
    corpus_lengths,
    sample_texts,
)
from blendtitan.runs.scalars import (
    MFU,
    TOKENS_PER_SECOND,
    Logged,
    Scalars,
    has_scalars,
    joined,
    read_starts,
    wall_seconds,
)
from blendtitan.runs.slots import Slots, step_slots
from blendtitan.runs.waiting import predicted_waiting
from blendtitan.settings.toml import NONE, read_toml, toml_of

FloatArray = NDArray[np.float64]

# Enough bins for a screen, and few enough that each holds its shares to a few percent.
_MOST_BINS = 100
_LEAST_SAMPLES = 32
_LEAST_MFU = 1.0
"""Percent. Older releases logged MFU on CPUs, too, as if they were A100s."""

_MODEL = ("model.name", "model.flavor")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendCurve:
    """Shares over the steps of a run, of ``C`` corpora in ``B`` bins and ``S`` segments."""

    corpora: tuple[str, ...]
    """The largest share of the whole run first."""
    bin_steps: FloatArray
    """Steps before each bin, then those of the run. Shape ``(B + 1,)``."""
    bin_samples: NDArray[np.int64]
    """Samples of each bin. Shape ``(B,)``."""
    achieved: FloatArray
    """Fraction of a bin's samples that are of the corpus. Shape ``(C, B)``."""
    segment_steps: FloatArray
    """Steps before each segment. Shape ``(S,)``."""
    configured: FloatArray
    """Configured share of a segment. Shape ``(C, S)``."""
    is_phase: tuple[bool, ...]
    """Whether a segment begins because data or window length changed, too."""

    @property
    def bin_segments(self) -> NDArray[np.int64]:
        """The segment of each bin. Shape ``(B,)``."""
        return np.searchsorted(self.segment_steps, self.bin_steps[:-1], side="right") - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusFacts:
    """One corpus."""

    name: str
    shards: int | None
    """Shards with documents for training; None, as for documents: the data is missing."""
    documents: int | None
    tokens: int
    """Tokens in the train split, inserted EODs included."""
    configured: float
    """Configured share: so far, or of the whole run before it has begun."""
    achieved: float
    """Fraction of these samples that is of the corpus."""
    tokens_read: int
    """Tokens read so far."""
    epochs: float
    epochs_at_end: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """One run."""

    name: str
    description: str
    """``job.description``; may be empty."""
    model: str
    """Name and flavor of the model; may be empty."""
    config: RunConfig
    about: str
    """The origin of the order."""
    num_samples: int
    """Samples of the whole run."""
    samples_read: int
    """Samples that were trained on."""
    skipped: tuple[SkippedStretch, ...]
    """Slots that the run leaves out."""
    removed: str
    """Documents that it no longer reads, in words; empty if there are none."""
    tokens_at_end: int
    last_step: int
    """Steps of the whole run."""
    schedule: BatchSchedule
    """The sizes of its steps, as trained and as planned."""
    seq_lens: tuple[int, ...]
    """The lengths of its windows; several if they were changed."""
    reached_step: int
    """Steps that were trained, by checkpoints and metrics; 0: none."""
    curve: BlendCurve
    corpora: tuple[CorpusFacts, ...]
    """Corpora in the order of the curve."""
    metrics: Mapping[str, Scalars]
    """Logged metrics by name; may be empty."""
    wall_seconds: float
    """Time between opening TensorBoard files and their last values; 0: unknown."""
    num_starts: int
    """Starts that logged something."""
    waited: float | None
    """Fraction of the time in training steps spent waiting for data; None: not logged."""
    lengths: Mapping[str, CorpusLengths]
    """Document lengths by corpus; empty: the data is missing."""
    samples: tuple[SampleText, ...]
    samples_step: int
    """The first step whose samples are shown."""
    waiting: str
    """The predicted waiting of ranks for each other; empty if steps are not balanced."""
    settings: Mapping[str, str]
    """``section.key`` of the TOML file, and the value as TOML has it."""

    def corpus(self, name: str) -> CorpusFacts | None:
        """A corpus by name."""
        return next((corpus for corpus in self.corpora if corpus.name == name), None)

    def last(self, metric: str, corpus: str = "") -> float | None:
        """The last logged value of a metric."""
        found = self.metrics.get(f"{metric}/{corpus}" if corpus else metric)
        return None if found is None else float(found.values[-1])

    def median(self, metric: str) -> float | None:
        """The median of the logged values of a metric."""
        found = self.metrics.get(metric)
        return None if found is None else float(np.median(found.values))


def gather_runs(
    paths: Sequence[Path], *, step: int = 1, ranks: int | None = None
) -> tuple[RunFacts, ...]:
    """The facts of runs, named by folder or file, or by path where these names repeat.

    Errors as ``gather_run``.
    """
    short = [_name(path.absolute()) for path in paths]
    names = short if len(set(short)) == len(paths) else list(map(str, paths))
    return tuple(
        gather_run(path, name=name, step=step, ranks=ranks)
        for path, name in zip(paths, names, strict=True)
    )


def _name(path: Path) -> str:
    """The folder or file, unless it has the name that `blendtitan init` gives it in every run."""
    if path.name in ("outputs", "config.toml"):
        return _name(path.parent) if path.parent.name else path.name
    return path.name if path.is_dir() else path.stem


def gather_run(path: Path, *, name: str, step: int = 1, ranks: int | None = None) -> RunFacts:
    """The facts of a run, with samples from ``step`` on; ``path`` and ``ranks`` as in ``open_run``.

    Raises:
        ConfigError: The configuration cannot be used, or there is no such step.
        ResumeError: A checkpoint cannot be read.
        ShardError: A shard is damaged.
    """
    run = open_run(path, ranks=ranks)
    config, slots = run.config, run.slots
    assert config is not None
    starts = read_starts(path) if path.is_dir() and has_scalars(path) else []
    seconds, num_starts = wall_seconds(starts)
    metrics = _metrics([start.logged for start in starts], slots)
    values = read_toml(config.path)
    trained = int(steps_before(slots.schedule, run.consumed_samples, slots.skips))
    reached = max([trained, *(int(each.steps[-1]) for each in metrics.values())])
    consumed = consumed_at(slots.schedule, reached)
    num_samples = max(1, run.num_samples, consumed)
    curve = blend_curve(slots, num_samples)
    return RunFacts(
        name=name,
        description=str(values.get("job.description", "")),
        model=" ".join(str(values[key]) for key in _MODEL if values.get(key) not in (None, NONE)),
        config=config,
        about=run.about,
        num_samples=slots.skips.kept_before(num_samples),
        samples_read=slots.skips.kept_before(consumed),
        skipped=slots.skipped,
        removed=_removed(run),
        tokens_at_end=sum(slots.tokens_before(num_samples).values()),
        last_step=round(steps_before(slots.schedule, num_samples, slots.skips)),
        schedule=slots.schedule,
        seq_lens=tuple(seq_len for seq_len, _ in groupby(each for _, each in slots.lengths)),
        reached_step=reached,
        curve=curve,
        corpora=tuple(_corpora(run, curve.corpora, num_samples, consumed)),
        metrics=metrics,
        wall_seconds=seconds,
        num_starts=num_starts,
        waited=_waited(metrics, slots.schedule),
        lengths={} if run.contents is None else corpus_lengths(run.contents),
        samples=sample_texts(run, step_slots(slots, step)[0]),
        samples_step=step,
        waiting=_waiting(run, config, ranks),
        settings={key: toml_of(value) for key, value in values.items()},
    )


def _removed(run: OpenRun) -> str:
    slots = Counter(run.contents.removed.values() if run.contents else ())
    return "; ".join(str(Removal(slot, slots[slot], "")) for slot in sorted(slots))


def _waiting(run: OpenRun, config: RunConfig, ranks: int | None) -> str:
    if config.balance == "none":
        return ""
    if ranks is None:
        return "steps are balanced; --ranks predicts how long ranks wait"
    if run.contents is None:
        return "steps are balanced; without the data, how long ranks wait is unknown"
    train, sizes = data_of_run(config).train, run.slots.schedule
    return str(predicted_waiting(config, train, ranks=ranks, schedule=sizes, skips=run.slots.skips))


def blend_curve(slots: Slots, stop_slot: int) -> BlendCurve:
    """The blend of the first ``stop_slot`` slots of a run, at least one."""
    segments = [s for s in slots.segments if s.first_slot < stop_slot]
    edges = _edges([segment.first_slot for segment in segments], stop_slot)
    names = sorted(slots.draws_before(stop_slot))
    before = [slots.draws_before(edge) for edge in edges]
    draws = np.array([[each[name] for name in names] for each in before])
    samples = np.diff(np.array([slots.skips.kept_before(edge) for edge in edges], np.int64))
    shares = [shares_of(segment.weights) for segment in segments]
    asked = configured_shares(names, slots.segments, stop_slot, slots.skips.kept_before)
    largest = np.argsort(-asked, kind="stable")
    phases = {phase.first_slot for phase in slots.phases[1:]}
    return BlendCurve(
        corpora=tuple(names[i] for i in largest),
        bin_steps=np.array([steps_before(slots.schedule, edge, slots.skips) for edge in edges]),
        bin_samples=samples,
        achieved=(np.diff(draws, axis=0) / np.maximum(1, samples)[:, None]).T[largest],
        segment_steps=np.array(
            [steps_before(slots.schedule, s.first_slot, slots.skips) for s in segments]
        ),
        configured=np.array([[of.get(name, 0.0) for name in names] for of in shares]).T[largest],
        is_phase=tuple(segment.first_slot in phases for segment in segments),
    )


def by_share(curves: Iterable[BlendCurve]) -> list[str]:
    """The corpora of some runs, the largest share first, on average over the runs."""
    shares: dict[str, float] = {}
    for curve in curves:
        own = curve.configured[:, curve.bin_segments] @ curve.bin_samples / curve.bin_samples.sum()
        for name, share in zip(curve.corpora, own.tolist(), strict=True):
            shares[name] = shares.get(name, 0.0) + share
    return sorted(shares, key=lambda name: -shares[name])


def _edges(firsts: Sequence[int], stop: int) -> list[int]:
    """Starts of the bins, and the end. No bin spans two segments."""
    least = max(_LEAST_SAMPLES, -(-stop // _MOST_BINS))
    edges: list[int] = []
    for first, end in zip(firsts, [*firsts[1:], stop], strict=True):
        bins = max(1, (end - first) // least)
        edges += np.linspace(first, end, bins, endpoint=False).astype(np.int64).tolist()
    return [*edges, stop]


def _metrics(starts: Sequence[Logged], slots: Slots) -> Mapping[str, Scalars]:
    """The logged metrics of a run, and its tokens per second; empty without TensorBoard files."""
    metrics = joined(starts)
    if MFU in metrics and metrics[MFU].values.max() < _LEAST_MFU:
        del metrics[MFU]
    speeds = metrics.get(SAMPLES_PER_SECOND)
    if speeds is None:
        return metrics
    firsts, lengths = zip(*slots.lengths, strict=True)
    last_slots = [consumed_at(slots.schedule, step) - 1 for step in speeds.steps.tolist()]
    of_step = np.array(lengths)[np.searchsorted(firsts, last_slots, side="right") - 1]
    return metrics | {TOKENS_PER_SECOND: Scalars(speeds.steps, speeds.values * of_step)}


def _waited(metrics: Mapping[str, Scalars], schedule: BatchSchedule) -> float | None:
    """Time spent waiting, as a fraction of the time of all logged steps."""
    waits, speeds = metrics.get(WAIT_SECONDS), metrics.get(SAMPLES_PER_SECOND)
    if waits is None or speeds is None or waits.steps.tolist() != speeds.steps.tolist():
        return None
    consumed = np.array([samples_of(schedule, step) for step in waits.steps.tolist()])
    seconds = float((np.diff(consumed, prepend=0) / speeds.values).sum())
    return float(waits.values.sum()) / seconds if seconds > 0 else None


def _corpora(
    run: OpenRun, names: Sequence[str], num_samples: int, consumed: int
) -> Iterator[CorpusFacts]:
    slots, now = run.slots, consumed or num_samples
    asked = configured_shares(names, slots.segments, now, slots.skips.kept_before)
    drawn, read = slots.draws_before(now), slots.tokens_before(consumed)
    at_end, tokens = slots.tokens_before(num_samples), slots.corpus_tokens
    documents = {} if run.contents is None else run.contents.documents_of_corpora()
    for i, name in enumerate(names):
        own = documents.get(name, [])
        yield CorpusFacts(
            name=name,
            shards=len(own) or None,
            documents=sum(own) or None,
            tokens=tokens[name],
            configured=float(asked[i]),
            achieved=drawn[name] / max(1, slots.skips.kept_before(now)),
            tokens_read=read[name],
            epochs=read[name] / max(1, tokens[name]),
            epochs_at_end=at_end[name] / max(1, tokens[name]),
        )

"""The state of a loader, and the checks that a saved state belongs to the present run."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from blendtitan.config import MAX_SLOT, ORIGINAL_ORDER
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.removed import Removal
from blendtitan.errors import BlendTitanError, ConfigError, ResumeError
from blendtitan.history.phases import (
    OrderSettings,
    Phase,
    phases_from,
    saved_phases,
    saved_segments,
)
from blendtitan.history.record import RunRecord, changed_checksums, differences, phase_differences
from blendtitan.history.removals import continued, removals_from, removals_of, saved_removals
from blendtitan.history.run import in_next_phase, in_phases, record_of, skipped_of
from blendtitan.history.skips import check_skips, saved_skips, skipped_from, skips_of
from blendtitan.order.course import NO_SKIPS, Skips
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

STATE_FORMAT = 2
STATE_KEY = "blendtitan"
"""The only key of a loader's ``state_dict``; its value is the state as JSON text."""
PACE_KEY = "pace"
"""Key of the batch schedule, which a trainer adds to the JSON."""

_TOKENS_KEY = "recent_tokens"
_CHECKSUMS_KEY = "checksums"
_SKIPS_KEY = "skips"
_REMOVED_KEY = "removed"

_DIGEST_SLOTS = 4096

_DIGEST_CHARS = 8
"""Hexadecimal digits of the digest of the tokens of one sample."""
_MOST_SAMPLES = 64
_MOST_TOKENS = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedState(RunRecord):
    """A complete and consistent state."""

    consumed_samples: int
    digest: str
    """Digest of the last 4,096 samples of the last phase."""
    recent_tokens: str
    """Digests of the tokens of the last samples; empty if the state has none."""
    removals: tuple[Removal, ...] = ()
    """When documents were removed."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The continuation of a run."""

    dataset: Dataset
    consumed_samples: int
    account: Sequence[str] = ()
    """If a new phase begins here: the differences, and the continuation of each corpus."""
    replaced: Sequence[str] = ()
    """Shards whose tokens were replaced since training on them, although the order is the same."""
    removed: Sequence[str] = ()
    """If other documents are removed from here on: which."""

    def warnings(self) -> Iterator[tuple[str, Sequence[str]]]:
        """What differs from the checkpoint, although it is allowed: a sentence, and lines."""
        if self.removed:
            yield f"Removed documents from slot {self.consumed_samples:,} on:", self.removed
        if self.account:
            yield (
                f"A new segment begins at slot {self.consumed_samples:,}, because on_change = "
                f"'new_segment' and the run was changed:",
                self.account,
            )
        if self.replaced:
            yield (
                "Shards no longer hold the tokens that the checkpoint was trained on. Training "
                "reads their current tokens, because on_change = 'new_segment':",
                self.replaced,
            )


def encode_state(
    dataset: Dataset, consumed_samples: int, *, more: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, str]:
    """The state after ``consumed_samples`` samples of all ranks together: the same on every rank.

    ``more`` is saved with it, by key.
    """
    record = record_of(dataset)
    slots = digest_slots(dataset.first_slot, consumed_samples, record.skips)
    state = {
        "format": STATE_FORMAT,
        **record.fixed_facts,
        **record.phase_facts,
        "chapters": saved_phases(record.phases),
        "consumed_samples": consumed_samples,
        "digest": digest_of(dataset.sample_ids(slots)),
        _TOKENS_KEY: recent_tokens(dataset, consumed_samples),
    }
    if record.checksums:
        state[_CHECKSUMS_KEY] = record.checksums
    if record.skipped:
        state[_SKIPS_KEY] = saved_skips(record.skipped)
    if removals := removals_of(dataset):
        state[_REMOVED_KEY] = saved_removals(removals)
    return {STATE_KEY: json.dumps({**state, **more})}


def resume(state: SavedState, dataset: Dataset) -> Resumed:
    """Continue a run from a saved state, after checking that the state matches ``dataset``.

    With ``on_change = "new_segment"``, changed weights, segments, corpora, data or ``seq_length``
    begin a new phase; replaced tokens do not.

    Raises:
        ResumeError: A difference is not allowed.
    """
    may_change = dataset.config.on_change != "error"
    now = record_of(dataset)
    fixed = differences(state.fixed_facts, now.fixed_facts)
    changed = phase_differences(state, now, blended=dataset.config.blend_sample_in_corpus)
    if fixed or (changed and not may_change):
        from blendtitan.history.refusal import refusal

        raise refusal(state, now, fixed, changed)
    check_skips(state.skipped, now.skipped, state.consumed_samples)
    consumed_samples = now.skips.first_kept(state.consumed_samples)
    dataset, removed = continued(
        dataset, state.removals, state.consumed_samples, may_change=may_change
    )
    if changed:
        assert isinstance(dataset, BlendedDataset)  # other orders have only fixed facts
        dataset, lines = in_next_phase(dataset, state.phases, consumed_samples)
        lines = [*changed, *(f"  {line}" for line in lines)]
        return Resumed(dataset, consumed_samples, lines, removed=removed)
    if isinstance(dataset, BlendedDataset):
        _check_shards(state.phases[-1], now.phases[-1])
        dataset = in_phases(dataset, state.phases, state.phase_facts.get("corpora"))
    else:  # with phases, parsing the state has proved it
        slots = digest_slots(dataset.first_slot, consumed_samples)
        _check_digest(state.digest, digest_of(dataset.sample_ids(slots)), consumed_samples)
    replaced = changed_checksums(dataset.catalog, state.checksums)
    replaced += changed_tokens(dataset, state.consumed_samples, state.recent_tokens)
    if replaced and not may_change:
        raise ResumeError(
            "the shards no longer contain the tokens that the checkpoint was trained on. "
            "Digests of samples that were read again, or checksums in shards.catalog, differ:",
            *replaced,
            "These shards were replaced or overwritten. Restore them, or set "
            'blendcorpus.on_change = "new_segment" to train on their current tokens, every corpus '
            "from its current position.",
        )
    return Resumed(dataset, consumed_samples, replaced=replaced, removed=removed)


def parse_state(saved: dict[str, Any]) -> SavedState:
    """Parse a saved state and check that it is consistent. No data is needed.

    In the original's order, samples cannot be computed without the data, so the digest is not
    checked.

    Raises:
        ResumeError: The state is missing or damaged, or has another version.
    """
    state = _parsed(saved)
    consumed_samples = state.pop("consumed_samples", None)
    if type(consumed_samples) is not int or not 0 <= consumed_samples < MAX_SLOT:
        raise damaged(f"consumed_samples = {consumed_samples!r}", "a whole number")
    found = state.pop("format", None)
    if found != STATE_FORMAT:
        raise ResumeError(
            f"the loader's state has format {found!r}, expected {STATE_FORMAT}. It was written by "
            f"another version of blendtitan: resume with that version."
        )
    digest = state.pop("digest", None)
    if not isinstance(digest, str):
        raise damaged(f"digest {digest!r}", "text")
    tokens = state.pop(_TOKENS_KEY, "")  # states of older releases have none
    checksums = _checked_checksums(state.pop(_CHECKSUMS_KEY, {}))
    try:
        skipped = skipped_from(state.pop(_SKIPS_KEY, ()))
        removals = removals_from(state.pop(_REMOVED_KEY, ()), consumed_samples)
    except ConfigError as error:
        raise damaged(str(error)) from error
    state.pop(PACE_KEY, None)  # belongs to the trainer, not to the order
    facts: dict[str, Any] = {}
    phases: tuple[Phase, ...] = ()
    if state.get("order") == ORIGINAL_ORDER:
        state.pop("chapters", None)
        _check_tokens(tokens, consumed_samples)
    else:
        facts = {name: state.pop(name, None) for name in ("seq_length", "segments", "corpora")}
        phases = _phases(state, facts, consumed_samples)
        slots = digest_slots(phases[-1].first_slot, consumed_samples, skips_of(skipped))
        recent = digest_of(phases[-1].order(order_settings(state)).places(slots).sample_ids)
        _check_digest(digest, recent, consumed_samples)
        _check_tokens(tokens, consumed_samples - phases[-1].first_slot)
    return SavedState(
        fixed_facts=state,
        phase_facts=facts,
        phases=phases,
        checksums=checksums,
        skipped=skipped,
        removals=removals,
        consumed_samples=consumed_samples,
        digest=digest,
        recent_tokens=tokens,
    )


def damaged(found: str, expected: str = "") -> ResumeError:
    """The error for a state that no run could have saved."""
    instead = f", expected {expected}" if expected else ""
    return ResumeError(
        f"the loader's state has {found}{instead}. The checkpoint is damaged: load an older one."
    )


def _checked_checksums(checksums: Any) -> dict[str, str]:
    try:
        if all(bytes.fromhex(text) is not None for text in checksums.values()):
            return checksums
    except (AttributeError, TypeError, ValueError):
        pass
    raise damaged(f"{_CHECKSUMS_KEY} = {checksums!r}", "hexadecimal text for each corpus")


def _check_tokens(tokens: Any, num_samples: int) -> None:
    is_text = isinstance(tokens, str) and len(tokens) % _DIGEST_CHARS == 0
    if not is_text or len(tokens) > _DIGEST_CHARS * num_samples:
        expected = f"{_DIGEST_CHARS} digits for each of the last samples"
        raise damaged(f"{_TOKENS_KEY} = {tokens!r}", expected)


def _check_digest(saved: str, found: str, consumed_samples: int) -> None:
    if saved != found:
        raise ResumeError(
            f"the checkpoint was trained on other samples before sample {consumed_samples:,} "
            f"(digest {saved!r}, here {found!r}). The state is damaged, or documents of a shard "
            f"were changed: load an older checkpoint, or restore the data."
        )


def digest_slots(
    first_slot: int, consumed_samples: int, skips: Skips = NO_SKIPS, most: int = _DIGEST_SLOTS
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The last 4,096 slots before ``consumed_samples``, of those from ``first_slot`` on.

    Skipped slots are not among them.
    """
    first, stop = skips.kept_before(first_slot), skips.kept_before(consumed_samples)
    return skips.slots_of(np.arange(max(first, stop - most), stop))


def digest_of(sample_ids: np.ndarray[Any, np.dtype[np.uint64]]) -> str:
    """Digest of the ids of some samples."""
    return hashlib.blake2b(sample_ids.astype("<u8").tobytes(), digest_size=16).hexdigest()


def order_settings(fixed_facts: dict[str, Any]) -> OrderSettings:
    """The settings in a state that the order depends on.

    Raises:
        ResumeError: They are damaged.
    """
    seed, split = fixed_facts.get("seed"), fixed_facts.get("split")
    flags = [fixed_facts.get(f"{name}_sample_in_corpus") for name in ("shuffle", "blend")]
    if not (isinstance(seed, int) and isinstance(split, str) and {*map(type, flags)} == {bool}):
        found = f"seed {seed!r}, split {split!r} and flags {flags!r}"
        raise damaged(found, "a number, a name and booleans")
    return OrderSettings(seed=seed, split=split, shuffled=bool(flags[0]), blended=bool(flags[1]))


def _phases(
    state: dict[str, Any], facts: dict[str, Any], consumed_samples: int
) -> tuple[Phase, ...]:
    try:
        phases = phases_from(state.pop("chapters", None), blended=order_settings(state).blended)
    except ConfigError as error:
        raise damaged(str(error)) from error
    last = phases[-1]
    if last.first_slot > consumed_samples:
        consumed = f"but only {consumed_samples:,} consumed samples"
        raise damaged(f"a phase that begins at slot {last.first_slot:,}, {consumed}")
    listed = {"seq_length": last.seq_len, "segments": saved_segments(last.segments)}
    if any(facts[name] != value for name, value in listed.items()):
        raise damaged(f"{listed} in its last phase", "the state's seq_length and segments")
    return phases


def _check_shards(saved: Phase, now: Phase) -> None:
    """Check that a phase lists the present shards, which have the same digests."""
    for name, shards in now.corpora.items():
        found = saved.corpora.get(name)
        if found is None or (found.ids, found.tokens) != (shards.ids, shards.tokens):
            raise ResumeError(
                f"the loader's state lists other shards of the corpus {name!r} than the data has, "
                f"although their digests agree. The checkpoint is damaged: load an older one."
            )


def _parsed(saved: dict[str, Any]) -> dict[str, Any]:
    text = saved.get(STATE_KEY)
    try:
        state = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict):
        raise ResumeError(
            f"the loader's state has the keys {sorted(saved)}, expected {STATE_KEY!r} with JSON "
            f"text. The checkpoint was written by another loader, or is damaged."
        )
    return state


def recent_tokens(dataset: Dataset, consumed_samples: int) -> str:
    """Digests of the tokens of the last samples, the latest last, as one text.

    They reveal replaced data. The samples are read again when a state is saved, so training batches
    cost nothing extra. Empty if nothing was read yet, or if the samples cannot be read at the
    moment: a checkpoint is worth more than its digests.
    """
    num_samples = max(1, min(_MOST_SAMPLES, _MOST_TOKENS // (dataset.config.seq_length + 1)))
    skips = skips_of(skipped_of(dataset))
    slots = digest_slots(dataset.first_slot, consumed_samples, skips, num_samples)
    try:
        return "".join(_digests(dataset, slots))
    except (BlendTitanError, OSError) as error:
        logger.warning(
            "The state is saved without digests of the last %d samples, so a resume does not "
            "notice if their tokens are replaced: %s",
            *(len(slots), error),
        )
        return ""


def changed_tokens(dataset: Dataset, consumed_samples: int, saved: str) -> list[str]:
    """A line for each shard whose samples differ from the saved digests.

    Raises:
        ShardError: A shard cannot be read.
    """
    expected = [saved[at : at + _DIGEST_CHARS] for at in range(0, len(saved), _DIGEST_CHARS)]
    skips = skips_of(skipped_of(dataset))
    slots = digest_slots(dataset.first_slot, consumed_samples, skips, len(expected))
    found = list(_digests(dataset, slots))
    differing = [i for i in range(len(found)) if found[i] != expected[i]]
    example_of: dict[tuple[str, str], str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for i in differing:
        sample = dataset[int(slots[i])]
        key = sample.corpus, sample.shard
        counts[key] += 1
        example_of.setdefault(key, f"slot {slots[i]:,}: {expected[i]}, now {found[i]}")
    return [
        f"  corpus {corpus!r}, shard {shard}: {count} of the last {len(found)} samples "
        f"({example_of[corpus, shard]})"
        for (corpus, shard), count in counts.items()
    ]


def _digests(dataset: Dataset, slots: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[str]:
    plan = dataset.plan(slots)
    for place in range(len(slots)):
        tokens = dataset.read(plan, place, place + 1).astype("<u4")
        yield hashlib.blake2b(tokens.tobytes(), digest_size=_DIGEST_CHARS // 2).hexdigest()

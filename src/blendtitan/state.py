"""The state of a loader, and the proof that a saved one belongs to the present run."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from blendtitan.config import MAX_SLOT, ORIGINAL_ORDER
from blendtitan.dataset.differences import chapter_differences, differences
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.recent_tokens import DIGEST_CHARS, changed_tokens, recent_tokens
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.order.chapters import Chapter, ChapterOrder, OrderSettings
from blendtitan.order.saved_chapters import chapters_from, saved_chapters, saved_segments

STATE_FORMAT = 2
STATE_KEY = "blendtitan"
"""The one key of a loader's ``state_dict``; its value is the state as JSON text."""
PACE_KEY = "pace"
"""Key within the JSON of what a trainer keeps beside the loader's own state."""

_TOKENS_KEY = "recent_tokens"
_CHECKSUMS_KEY = "checksums"

_DIGEST_SLOTS = 4096


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state that is complete and agrees with itself."""

    consumed_samples: int
    fixed_facts: dict[str, Any]
    """What never changes in a run."""
    chapter_facts: dict[str, Any]
    """What another chapter may change."""
    chapters: tuple[Chapter, ...]
    digest: str
    """Of the last 4,096 samples of the last chapter."""
    recent_tokens: str = ""
    """Digests of the tokens of the last samples; empty where the state has none."""
    checksums: dict[str, str] = field(default_factory=dict)
    """Checksums of each corpus's shards, as far as they were known."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a run goes on with."""

    dataset: Dataset
    consumed_samples: int
    account: tuple[str, ...]
    """Where a new chapter begins here: how each corpus goes on."""
    replaced: tuple[str, ...] = ()
    """Data that is not what was trained on, though the order is the same."""


def encode_state(
    dataset: Dataset, consumed_samples: int, *, more: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, str]:
    """The state after ``consumed_samples`` samples: the same on every rank.

    Args:
        dataset: What is read.
        consumed_samples: Of all ranks together, since slot 0.
        more: What else is saved with it, by key.
    """
    slots = digest_slots(dataset.first_slot, consumed_samples)
    state = {
        "format": STATE_FORMAT,
        **dataset.fixed_facts(),
        **dataset.chapter_facts(),
        "chapters": saved_chapters(dataset.chapters),
        "consumed_samples": consumed_samples,
        "digest": digest_of(dataset.sample_ids(slots)),
        _TOKENS_KEY: recent_tokens(dataset, consumed_samples),
    }
    if checksums := dataset.checksums():
        state[_CHECKSUMS_KEY] = checksums
    return {STATE_KEY: json.dumps({**state, **more})}


def resume(state: SavedState, dataset: Dataset) -> Resumed:
    """Where a run with a saved state goes on, once all of it agrees with ``dataset``.

    With ``on_change = "new_segment"``, other weights, segments, corpora, data and another
    ``seq_length`` begin a new chapter there; other tokens in the same places do not.

    Raises:
        ResumeError: Anything in it differs from this run that may not.
    """
    fixed = differences(state.fixed_facts, dataset.fixed_facts())
    changed = chapter_differences(state.chapter_facts, state.chapters, dataset)
    if fixed or (changed and dataset.config.on_change == "error"):
        raise ResumeError(
            "the checkpoint was written with other data or settings, so the samples would not go "
            "on where it stopped:",
            *fixed,
            *changed,
            _way_out(fixed),
        )
    consumed_samples = state.consumed_samples
    if changed:
        going_on = dataset.in_next_chapter(state.chapters, consumed_samples)
        lines = (*changed, *(f"  {line}" for line in going_on.account()))
        return Resumed(going_on, consumed_samples, lines)
    for saved_chapter, chapter in zip(state.chapters[-1:], dataset.chapters[-1:], strict=True):
        _check_shards(saved_chapter, chapter)
    if not state.chapters:  # with chapters, the state alone has proved it
        slots = digest_slots(dataset.first_slot, consumed_samples)
        _check_digest(state.digest, digest_of(dataset.sample_ids(slots)), consumed_samples)
    going_on = dataset.in_chapters(state.chapters, state.chapter_facts.get("corpora"))
    replaced = dataset.changed_checksums(state.checksums)
    replaced += changed_tokens(going_on, consumed_samples, state.recent_tokens)
    if replaced and dataset.config.on_change == "error":
        raise ResumeError(
            "the checkpoint was trained on other tokens than its shards hold now. Digests of "
            "samples that were read again, or checksums in shards.catalog, differ:",
            *replaced,
            "These shards were replaced or written over. Restore them, or set "
            'on_change = "new_segment" to read from here on what they hold now, every corpus '
            "where it was.",
        )
    return Resumed(going_on, consumed_samples, (), tuple(replaced))


def parse_state(saved: dict[str, Any]) -> SavedState:
    """A saved state, once all of it agrees with itself; no data is needed.

    In the original's order samples cannot be computed without the data: its digest is not checked.

    Raises:
        ResumeError: It is missing or damaged, or of another version.
    """
    state = _parsed(saved)
    consumed_samples = state.pop("consumed_samples", None)
    if type(consumed_samples) is not int or not 0 <= consumed_samples < MAX_SLOT:
        raise ResumeError(
            f"the loader's state has consumed_samples = {consumed_samples!r}, expected a whole "
            f"number. The checkpoint is damaged: load an older one."
        )
    found = state.pop("format", None)
    if found != STATE_FORMAT:
        raise ResumeError(
            f"the loader's state has format {found!r}, expected {STATE_FORMAT}. It was written by "
            f"another version of blendtitan: resume with that one."
        )
    digest = state.pop("digest", None)
    if not isinstance(digest, str):
        raise ResumeError(
            f"the loader's state has digest {digest!r}, expected a text. The checkpoint is "
            f"damaged: load an older one."
        )
    tokens = state.pop(_TOKENS_KEY, "")  # states of older releases have none
    checksums = _checked_checksums(state.pop(_CHECKSUMS_KEY, {}))
    state.pop(PACE_KEY, None)  # the trainer's, and no part of the order
    if state.get("order") == ORIGINAL_ORDER:
        state.pop("chapters", None)
        _check_tokens(tokens, consumed_samples)
        return SavedState(consumed_samples, state, {}, (), digest, tokens, checksums)
    chapter_facts = {name: state.pop(name, None) for name in ("seq_length", "segments", "corpora")}
    chapters = _chapters(state, consumed_samples)
    last = chapters[-1]
    listed = {"seq_length": last.seq_len, "segments": saved_segments(last.segments)}
    if any(chapter_facts[name] != value for name, value in listed.items()):
        raise ResumeError(
            f"the loader's state has {listed} in its last chapter, expected its own seq_length "
            f"and segments. The checkpoint is damaged: load an older one."
        )
    _check_digest(
        digest, _recent_digest(last, order_settings(state), consumed_samples), consumed_samples
    )
    _check_tokens(tokens, consumed_samples - last.first_slot)
    facts = chapter_facts, chapters, digest
    return SavedState(consumed_samples, state, *facts, tokens, checksums)


def _checked_checksums(checksums: Any) -> dict[str, str]:
    try:
        if all(bytes.fromhex(text) is not None for text in checksums.values()):
            return checksums
    except (AttributeError, TypeError, ValueError):
        pass
    raise ResumeError(
        f"the loader's state has {_CHECKSUMS_KEY} = {checksums!r}, expected hexadecimal text for "
        f"each corpus. The checkpoint is damaged: load an older one."
    )


def _check_tokens(tokens: Any, num_samples: int) -> None:
    is_text = isinstance(tokens, str) and len(tokens) % DIGEST_CHARS == 0
    if not is_text or len(tokens) > DIGEST_CHARS * num_samples:
        raise ResumeError(
            f"the loader's state has {_TOKENS_KEY} = {tokens!r}, expected {DIGEST_CHARS} digits "
            f"for each of the last samples. The checkpoint is damaged: load an older one."
        )


def _check_digest(saved: str, found: str, consumed_samples: int) -> None:
    if saved != found:
        raise ResumeError(
            f"the order of the last samples before sample {consumed_samples:,} is not the one "
            f"that the checkpoint was trained on (digest {saved!r}, here {found!r}). The state "
            f"is damaged, or documents of a shard were changed: load an older checkpoint, or "
            f"restore the data."
        )


def digest_slots(first_slot: int, consumed_samples: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The last 4,096 slots before ``consumed_samples``, of those from ``first_slot`` on."""
    return np.arange(max(first_slot, consumed_samples - _DIGEST_SLOTS), consumed_samples)


def digest_of(sample_ids: np.ndarray[Any, np.dtype[np.uint64]]) -> str:
    """Digest of the ids of some samples."""
    return hashlib.blake2b(sample_ids.astype("<u8").tobytes(), digest_size=16).hexdigest()


def _recent_digest(chapter: Chapter, settings: OrderSettings, consumed_samples: int) -> str:
    slots = digest_slots(chapter.first_slot, consumed_samples)
    return digest_of(ChapterOrder.build(chapter, settings).slot_places(slots).sample_ids)


def order_settings(fixed_facts: dict[str, Any]) -> OrderSettings:
    """What the order depends on, of a state's facts.

    Raises:
        ResumeError: They are damaged.
    """
    seed, split = fixed_facts.get("seed"), fixed_facts.get("split")
    flags = [fixed_facts.get(f"{name}_sample_in_corpus") for name in ("shuffle", "blend")]
    if not (isinstance(seed, int) and isinstance(split, str) and {*map(type, flags)} == {bool}):
        raise ResumeError(
            f"the loader's state has seed {seed!r}, split {split!r} and flags {flags!r}, expected "
            f"a number, a name and truth values. The checkpoint is damaged: load an older one."
        )
    return OrderSettings(seed=seed, split=split, shuffled=bool(flags[0]), blended=bool(flags[1]))


def _chapters(state: dict[str, Any], consumed_samples: int) -> tuple[Chapter, ...]:
    try:
        chapters = chapters_from(state.pop("chapters", None), blended=order_settings(state).blended)
    except ConfigError as error:
        raise ResumeError(
            f"the loader's state has {error}. The checkpoint is damaged: load an older one."
        ) from error
    if chapters[-1].first_slot > consumed_samples:
        raise ResumeError(
            f"the loader's state has a chapter from slot {chapters[-1].first_slot:,} on, but only "
            f"{consumed_samples:,} consumed samples. The checkpoint is damaged: load an older one."
        )
    return chapters


def _check_shards(saved: Chapter, now: Chapter) -> None:
    """Check that what a chapter lists is what is there, where their digests agree."""
    for name, shards in now.corpora.items():
        found = saved.corpora.get(name)
        if found is None or (found.ids, found.tokens) != (shards.ids, shards.tokens):
            raise ResumeError(
                f"the loader's state lists other shards of the corpus {name!r} than are there, "
                f"though their digests agree. The checkpoint is damaged: load an older one."
            )


def _way_out(fixed: list[str]) -> str:
    restore = "Restore the values of the checkpoint, or begin a run of its own in another folder."
    if fixed:
        return restore
    return (
        'Restore the values of the checkpoint, or set on_change = "new_segment" to go on from '
        "here with what is set now, every corpus where it was."
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

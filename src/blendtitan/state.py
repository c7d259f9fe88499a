"""The state of a loader, and the proof that a saved one belongs to the present run."""

import hashlib
import json
from typing import Any

import numpy as np

from blendtitan.config import split_fractions
from blendtitan.dataset.blended import MAX_SLOT, BlendedDataset
from blendtitan.errors import ResumeError

STATE_FORMAT = 1
ORDER_VERSION = 1
STATE_KEY = "blendtitan"
"""The one key of a loader's ``state_dict``; its value is the state as JSON text."""
PACE_KEY = "pace"
"""Key within the JSON of what a trainer keeps beside the loader's own state."""

_DIGEST_SLOTS = 4096


def encode_state(dataset: BlendedDataset, consumed_samples: int) -> dict[str, str]:
    """The state after ``consumed_samples`` samples: the same on every rank."""
    state = {
        **_facts(dataset),
        "consumed_samples": consumed_samples,
        "digest": recent_digest(dataset, consumed_samples),
    }
    return {STATE_KEY: json.dumps(state)}


def decode_state(saved: dict[str, Any], dataset: BlendedDataset) -> int:
    """The consumed samples of a saved state, once all of it agrees with ``dataset``.

    Raises:
        ResumeError: The state is missing or damaged, or anything in it differs from this run.
    """
    state = _parsed(saved)
    consumed_samples = state.pop("consumed_samples", None)
    digest = state.pop("digest", None)
    state.pop(PACE_KEY, None)  # the trainer's, and no part of the order
    if type(consumed_samples) is not int or not 0 <= consumed_samples < MAX_SLOT:
        raise ResumeError(
            f"the loader's state has consumed_samples = {consumed_samples!r}, expected a whole "
            f"number. The checkpoint is damaged: load an older one."
        )
    differences = _differences(state, _facts(dataset))
    if differences:
        raise ResumeError(
            "the checkpoint was written with other data or settings, so the samples would not go "
            "on where it stopped:\n" + "\n".join(differences) + "\n"
            "Restore the values of the checkpoint, or begin a run of its own in another folder."
        )
    if digest != recent_digest(dataset, consumed_samples):
        raise ResumeError(
            f"the order of the last samples before sample {consumed_samples:,} is not the one "
            f"that the checkpoint was trained on (digest {digest!r}, here "
            f"{recent_digest(dataset, consumed_samples)!r}). The documents of a shard were "
            f"changed: restore the data, or begin a run of its own in another folder."
        )
    return consumed_samples


def recent_digest(dataset: BlendedDataset, consumed_samples: int) -> str:
    """Digest of the ids of the last 4,096 samples before ``consumed_samples``."""
    slots = np.arange(max(0, consumed_samples - _DIGEST_SLOTS), consumed_samples)
    sample_ids = dataset.plan(slots.astype(np.int64)).sample_ids
    return hashlib.blake2b(sample_ids.astype("<u8").tobytes(), digest_size=16).hexdigest()


def _facts(dataset: BlendedDataset) -> dict[str, Any]:
    """Everything that the order and the tokens of samples depend on."""
    config = dataset.config
    return {
        "format": STATE_FORMAT,
        "order": ORDER_VERSION,
        "seed": config.seed,
        "seq_length": config.seq_length,
        "split": dataset.split,
        "split_fractions": list(split_fractions(config.split)),
        "shuffle_sample_in_corpus": config.shuffle_sample_in_corpus,
        "blend_sample_in_corpus": config.blend_sample_in_corpus,
        "append_eod": config.append_eod,
        "eod_token_id": config.eod_token_id,
        "segments": [
            {"first_slot": segment.first_slot, "weights": dict(segment.weights)}
            for segment in dataset.segments
        ],
        "corpora": dataset.corpora_held(),
    }


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


def _differences(saved: Any, now: Any, path: str = "") -> list[str]:
    """One line for each place where two trees of dicts and lists differ."""
    if isinstance(saved, list) and isinstance(now, list):
        saved, now = dict(enumerate(saved)), dict(enumerate(now))
    if isinstance(saved, dict) and isinstance(now, dict):
        keys = [*saved, *(key for key in now if key not in saved)]
        prefix = f"{path}." if path else ""
        return [
            line
            for key in keys
            for line in _differences(saved.get(key), now.get(key), f"{prefix}{key}")
        ]
    return [] if saved == now else [f"  {path}: checkpoint {saved!r}, now {now!r}"]

"""Digests of the tokens of the last samples, kept in a state to notice data that was replaced.

They are made by reading the samples again when the state is saved, so that a training batch costs
nothing more, and every rank makes the same.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from blendtitan.dataset.interface import Dataset
from blendtitan.errors import BlendTitanError
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

DIGEST_CHARS = 8
"""Hexadecimal digits of the digest of one sample."""

_MOST_SAMPLES = 64
_MOST_TOKENS = 1 << 20


def recent_tokens(dataset: Dataset, consumed_samples: int) -> str:
    """Digests of the last samples, the latest last, as one text.

    It is empty where nothing was read yet, or cannot be read at the moment: a checkpoint is worth
    more than this.
    """
    num_samples = max(1, min(_MOST_SAMPLES, _MOST_TOKENS // (dataset.config.seq_length + 1)))
    first = max(dataset.first_slot, consumed_samples - num_samples)
    try:
        return "".join(_digests(dataset, first, consumed_samples))
    except (BlendTitanError, OSError) as error:
        logger.warning(
            "The state is saved without digests of the last %d samples, so a resume does not "
            "notice if their tokens are replaced: %s",
            *(consumed_samples - first, error),
        )
        return ""


def changed_tokens(dataset: Dataset, consumed_samples: int, saved: str) -> list[str]:
    """For each shard whose samples have other digests than the saved ones, a line about it.

    Raises:
        ShardError: A shard cannot be read.
    """
    expected = [saved[at : at + DIGEST_CHARS] for at in range(0, len(saved), DIGEST_CHARS)]
    first = consumed_samples - len(expected)
    found = list(_digests(dataset, first, consumed_samples))
    differing = [i for i in range(len(found)) if found[i] != expected[i]]
    example_of: dict[tuple[str, str], str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for i in differing:
        sample = dataset[first + i]
        key = sample.corpus, sample.shard
        counts[key] += 1
        example_of.setdefault(key, f"slot {first + i:,}: {expected[i]}, now {found[i]}")
    return [
        f"  corpus {corpus!r}, shard {shard}: {count} of the last {len(found)} samples "
        f"({example_of[corpus, shard]})"
        for (corpus, shard), count in counts.items()
    ]


def _digests(dataset: Dataset, first: int, stop: int) -> Iterator[str]:
    plan = dataset.plan(np.arange(first, stop))
    for place in range(stop - first):
        tokens = dataset.read(plan, place, place + 1).astype("<u4")
        yield hashlib.blake2b(tokens.tobytes(), digest_size=DIGEST_CHARS // 2).hexdigest()

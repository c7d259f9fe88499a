"""Errors of reading a sample, with the place of the sample in the data."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from blendtitan.dataset.stretches import document_of, offset_in_shard
from blendtitan.errors import ConfigError, VocabularyError

if TYPE_CHECKING:
    from blendtitan.dataset.blended import BlendedDataset, Plan


def slots_error(first: int, last: int, first_slot: int) -> ConfigError:
    """The error for slots that cannot be read, in a run whose data changed at ``first_slot``."""
    if 0 <= first < first_slot:
        return ConfigError(
            f"slot {first:,} was read with other data, weights or another sequence length, "
            f"before the run was changed at slot {first_slot:,}; expected this slot or a later one"
        )
    return ConfigError(f"slots {first} to {last}, expected 0 to 10^15 - 1")


def vocabulary_error(
    dataset: "BlendedDataset", plan: "Plan", start: int, tokens: NDArray[np.integer]
) -> VocabularyError:
    """The error for the first token outside the vocabulary.

    Args:
        dataset: The dataset that was read.
        plan: The plan of the samples.
        start: First sample of ``tokens`` in the plan.
        tokens: Shape ``(n, L + 1)``.
    """
    limit = dataset.config.vocab_size
    assert limit is not None
    sample, offset = np.argwhere((tokens < 0) | (tokens >= limit))[0]
    at = start + int(sample)
    stretches = dataset.order.stretches(plan.places, at)
    in_row = [first + i for first, count in stretches for i in range(count)]
    shard, document_id = document_of(dataset.rows, int(plan.places.rows[at]), in_row[offset])
    error = VocabularyError(
        f"{dataset.catalog.prefixes[shard]}: document {document_id} holds the token id "
        f"{tokens[sample, offset]}, expected ids from 0 to {limit - 1}. The shard was made "
        f"with another tokenizer, or the model's vocabulary is too small."
    )
    error.add_note(whereabouts(dataset, plan, at))
    return error


def whereabouts(dataset: "BlendedDataset", plan: "Plan", at: int) -> str:
    """The slot, corpus, shard and offset of a sample of a plan, for an error."""
    places, split = plan.places, dataset.split
    first = dataset.order.stretches(places, at)[0][0]
    shard, offset = offset_in_shard(dataset.rows, int(places.rows[at]), first)
    return (
        f"while reading slot {plan.slots[at]} of {split}: "
        f"corpus {dataset.corpora[int(places.corpora[at])]!r}, "
        f"shard {dataset.catalog.prefixes[shard]}, from token {offset:,} of its {split} part on "
        f"(window {places.windows[at]} of epoch {places.epochs[at]})"
    )

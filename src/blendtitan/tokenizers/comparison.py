"""Texts on which the two tiers differ."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from blendtitan.tokenizers.base import Tokenizer, concatenated
from blendtitan.tokenizers.fast import FastEncoder

_BATCH_CHARS = 1 << 19
_EDGE_CHARS = 64
_CONTEXT_IDS = 8


def differing_texts(reference: Tokenizer, fast: FastEncoder, texts: Iterable[str]) -> Iterator[str]:
    """Each of the texts for which the fast tier gives other ids than the reference.

    Raises:
        FastTierError: The fast tier failed.
    """
    for batch in _batches(texts):
        encoded = fast.encode_texts(batch)
        ids, lens = reference.encode_batch(batch)
        found_ids, found_lens = concatenated(encoded)
        if np.array_equal(lens, found_lens) and np.array_equal(ids, found_ids):
            continue
        for text, found, expected in zip(batch, encoded, split(ids, lens), strict=True):
            if not np.array_equal(found, expected):
                yield text


def split(ids: NDArray[np.int32], lens: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """The ids of each text. NumPy would split no ids of no texts into one piece."""
    return np.split(ids, np.cumsum(lens)[:-1]) if len(lens) else []


def first_difference(found: NDArray[np.integer], expected: NDArray[np.integer]) -> int:
    """Index of the first id that differs; the shorter length if one begins with the other."""
    shared = min(len(found), len(expected))
    differs = np.flatnonzero(found[:shared] != expected[:shared])
    return int(differs[0]) if len(differs) else shared


def difference(text: str, found: NDArray[np.integer], expected: NDArray[np.integer]) -> str:
    """A sentence that says where the ids of a text differ."""
    at = first_difference(found, expected)
    window = slice(at, at + _CONTEXT_IDS)
    return (
        f"gigatoken gives other ids than the reference for the text {text[:_EDGE_CHARS]!r} of "
        f"{len(text):,} characters: from id number {at:,} on {found[window].tolist()}, expected "
        f"{expected[window].tolist()}."
    )


def difference_in(reference: Tokenizer, fast: FastEncoder, text: str) -> str:
    """A sentence that says where the tiers' ids of a text differ."""
    return difference(text, fast.encode_texts([text])[0], reference.encode_batch([text])[0])


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    num_chars = 0
    for text in texts:
        batch.append(text)
        num_chars += len(text) + 1
        if num_chars >= _BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch

"""Build the index files of the original's order from a catalog, in one process for all."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import SPLITS, BlendConfig, split_fractions
from blendtitan.errors import ConfigError, EmptySplitError
from blendtitan.original.index import (
    BLOCK_SLOTS,
    RECORD,
    CorpusEntry,
    IndexFile,
    checked_index,
    write_index,
)
from blendtitan.original.order import (
    blend_of_corpora,
    corpus_samples,
    corpus_shuffle,
    samples_of_shards,
    sequence_cuts,
    shard_samples,
)
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.index_arrays import IndexArrays
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

IntArray = NDArray[np.int64]
RecordArray = NDArray[np.void]

# Another number gives the files other names, so that no file of another format is read.
_FORMAT = 1

# Shuffling and cutting release the interpreter. Each thread holds one shard in memory, so
# their number is limited.
_THREADS = 8


def original_indices(config: BlendConfig, catalog: Catalog) -> tuple[IndexFile | None, ...]:
    """The index of each split: found in ``data_cache_path``, or built and stored there.

    One process calls this and sends the result to the others. None for an unused split.

    Raises:
        ConfigError: The folder cannot be used, numba is missing, or documents lack EOD.
        EmptySplitError: A shard has no document in a split that is used.
        ShardError: An ``.idx`` is missing or damaged.
    """
    _check_eod(config, catalog)
    assert config.data_cache_path is not None
    folder = Path(config.data_cache_path)
    try:
        return tuple(
            _original_index(folder, config, catalog, split) if samples else None
            for split, samples in zip(SPLITS, samples_of_splits(config), strict=True)
        )
    except OSError as error:
        raise ConfigError(
            f"data_cache_path is {folder}, expected a folder to keep the index of the order in: "
            f"{error.strerror}"
        ) from error


def samples_of_splits(config: BlendConfig) -> list[int]:
    """Samples that the original makes of train, valid and test; 0 for an unused split."""
    asked = (config.train_samples, config.eval_samples, config.eval_samples)
    fractions = split_fractions(config.split)
    return [samples or 0 if part else 0 for samples, part in zip(asked, fractions, strict=True)]


def _check_eod(config: BlendConfig, catalog: Catalog) -> None:
    if config.append_eod and catalog.lacks_eod.any():
        prefix = catalog.prefixes[int(np.argmax(catalog.lacks_eod))]
        raise ConfigError(
            f"{prefix}: its documents do not end in EOD ({config.eod_token_id}), and append_eod = "
            f'true would insert it. The original, and so order = "blendcorpus", inserts no EOD: '
            f"set append_eod = false."
        )


def _original_index(folder: Path, config: BlendConfig, catalog: Catalog, split: str) -> IndexFile:
    path = folder / f"order-{split}-{_identity(config, catalog, split)}"
    try:
        found = checked_index(path)
        if found is not None:
            return found
        logger.warning("%s: the cached index of the order is damaged and is built again", path)
    except FileNotFoundError:
        pass
    start = time.monotonic()
    corpora, shard_tokens, columns = build_order(config, catalog, split)
    folder.mkdir(parents=True, exist_ok=True)
    index_file = write_index(path, corpora, shard_tokens, columns)
    logger.info(
        "The original's order of %s: %s samples of %d shards, built in %.1f s",
        *(split, f"{len(columns['slots']):,}", len(catalog.prefixes), time.monotonic() - start),
    )
    return index_file


def _identity(config: BlendConfig, catalog: Catalog, split: str) -> str:
    """A name that identifies everything an index depends on."""
    parts: list[object] = [
        *(_FORMAT, split, samples_of_splits(config)[SPLITS.index(split)]),
        *(split_fractions(config.split), config.seed, config.seq_length),
        *(config.shuffle_sample_in_corpus, config.blend_sample_in_corpus),
    ]
    for prefix, corpus, weight in zip(
        catalog.prefixes, catalog.corpora, catalog.weights.tolist(), strict=True
    ):
        parts.append([prefix, corpus, weight])
        with suppress(OSError):  # Building reports the error.
            status = os.stat(f"{prefix}.idx")
            parts.append([status.st_size, status.st_mtime_ns])
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def build_order(
    config: BlendConfig, catalog: Catalog, split: str
) -> tuple[list[CorpusEntry], list[int], dict[str, NDArray[Any]]]:
    """Corpora, tokens of shards, and columns of the index of one split.

    Raises:
        EmptySplitError: A shard has no document in the split.
        ShardError: An ``.idx`` is missing or damaged.
    """
    asked = samples_of_shards(
        catalog.weights.tolist(), samples_of_splits(config)[SPLITS.index(split)]
    )
    shards_of = catalog.shards_of_corpora()
    made, reads, shard_tokens = _shard_records(config, catalog, split, asked)
    shard_starts = np.cumsum([0, *asked])[:-1]
    records = np.empty(len(made), RECORD)
    corpora: list[CorpusEntry] = []
    first = 0
    for name, shards in shards_of.items():
        members, samples = corpus_samples(
            [asked[shard] for shard in shards], blend=config.blend_sample_in_corpus
        )
        samples += shard_starts[shards][members]
        order = corpus_shuffle(
            len(samples), shuffle=config.shuffle_sample_in_corpus, seed=config.seed
        )
        _take(made, samples[order], records[first : first + len(samples)])
        first += len(samples)
        corpora.append(CorpusEntry(name, len(samples)))
    num_samples = [corpus.num_samples for corpus in corpora]
    of_slots, draws = blend_of_corpora(num_samples)
    columns = {
        "slots": np.cumsum([0, *num_samples])[of_slots] + draws,
        "counts": _counts(of_slots, len(corpora)).ravel(),
        "records": records,
        "reads": reads,
    }
    return corpora, shard_tokens, columns


def _sequences(config: BlendConfig, catalog: Catalog, split: str, shard: int) -> range:
    """Sequences of a shard that are in a split.

    Raises:
        EmptySplitError: The split is empty.
    """
    part = SPLITS.index(split)
    num_sequences = int(catalog.num_sequences[shard])
    cuts = sequence_cuts(num_sequences, split_fractions(config.split))
    if not 0 <= cuts[part] < cuts[part + 1]:
        raise _empty(config, catalog, split, shard, f"{num_sequences:,} documents, none of them")
    return range(cuts[part], cuts[part + 1])


def _empty(
    config: BlendConfig, catalog: Catalog, split: str, shard: int, found: str
) -> EmptySplitError:
    return EmptySplitError(
        f"{catalog.prefixes[shard]}: it has {found} in the {split} split, with split = "
        f'{config.split!r}. The original fails on such a shard, and so does order = "blendcorpus": '
        f"give {split} a larger part, or none, merge the shard with others, or leave it out."
    )


def _shard_records(
    config: BlendConfig, catalog: Catalog, split: str, asked: Sequence[int]
) -> tuple[RecordArray, NDArray[np.int32], list[int]]:
    """``(records, reads, tokens of each shard)``, shard after shard.

    A shard has the requested number of records, in the order of its samples.
    """
    sequences = [_sequences(config, catalog, split, shard) for shard in range(len(asked))]
    records = np.empty(sum(asked), RECORD)
    stops = np.cumsum(asked).tolist()

    def of_shard(shard: int) -> tuple[NDArray[np.int32], int]:
        span = sequences[shard]
        lens = _sequence_lens(Path(catalog.prefixes[shard]), span)
        num_tokens = int(lens.sum(dtype=np.int64))
        if num_tokens == 0:
            raise _empty(config, catalog, split, shard, "no tokens")
        samples = shard_samples(
            lens,
            span.start,
            seq_len=config.seq_length,
            num_samples=asked[shard],
            seed=config.seed,
        )
        own = records[stops[shard] - asked[shard] : stops[shard]]
        own["shard"], own["num_reads"] = shard, samples.num_reads
        own["window"], own["offset"] = samples.windows, samples.offsets
        own["first_read"] = samples.first_reads
        return samples.reads, num_tokens

    with ThreadPoolExecutor(_THREADS) as pool:
        built = list(pool.map(of_shard, range(len(asked))))
    first = 0
    for stop, count, (reads, _) in zip(stops, asked, built, strict=True):
        records["first_read"][stop - count : stop] += first
        first += len(reads)
    return records, np.concatenate([reads for reads, _ in built]), [tokens for _, tokens in built]


def _take(records: RecordArray, places: IntArray, out: RecordArray) -> None:
    """``out[:] = records[places]``, in a tenth of the time: NumPy is slow with structures."""
    source, target = (array.view(np.int32).reshape(len(array), -1) for array in (records, out))
    # With "clip" it writes to the target at once; all places are within the records.
    np.take(source, places, axis=0, out=target, mode="clip")


def _sequence_lens(prefix: Path, sequences: range) -> NDArray[np.int32]:
    """Tokens of some sequences of a shard, all of whose lengths and pointers are checked."""
    arrays = IndexArrays.open(prefix)
    arrays.check_lens()
    return arrays.lens[sequences.start : sequences.stop]


def _counts(of_slots: NDArray[np.int32], num_corpora: int) -> IntArray:
    """Slots of each corpus before each block of slots: ``(num_blocks + 1, num_corpora)``."""
    counts = [np.zeros(num_corpora, np.int64)]
    for at in range(0, len(of_slots) - BLOCK_SLOTS + 1, BLOCK_SLOTS):
        block = of_slots[at : at + BLOCK_SLOTS]
        counts.append(counts[-1] + np.bincount(block, minlength=num_corpora))
    return np.array(counts)

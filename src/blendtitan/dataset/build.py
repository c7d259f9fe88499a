"""From a configuration to datasets: the only place where they are put together."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blendtitan.config import SPLITS, BlendConfig, split_fractions
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.plan import WindowColumns
from blendtitan.dataset.rows import Rows
from blendtitan.errors import ConfigError, EmptySplitError
from blendtitan.order.blend import BlendTrees
from blendtitan.order.permutation import stream_key
from blendtitan.order.segments import Segment
from blendtitan.order.splits import document_cuts
from blendtitan.order.windows import num_windows, tokens_left_over
from blendtitan.storage.catalog import Catalog, build_catalog, cached_catalog
from blendtitan.storage.file_list import read_file_list
from blendtitan.storage.open_files import OpenFiles

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Datasets:
    """The splits of a blend; None where a split is empty."""

    train: BlendedDataset | None
    valid: BlendedDataset | None
    test: BlendedDataset | None


def build_datasets(config: BlendConfig, catalog: Catalog | None = None) -> Datasets:
    """Build the three splits of a blend.

    Args:
        config: What to read, and in which order.
        catalog: From ``read_catalog``, possibly of another process; None: it is read now.

    Raises:
        ConfigError: The file list cannot be used.
        ShardError: A shard cannot be used.
        EmptySplitError: A corpus has documents, but none of them for training.
    """
    catalog = catalog or read_catalog(config)
    if catalog.settings != _catalog_settings(config):
        raise ConfigError(
            f"the catalog was made with {catalog.settings}, expected {_catalog_settings(config)}"
        )
    files = OpenFiles(config.max_open_shards)
    return Datasets(*(_build_split(config, catalog, files, split) for split in SPLITS))


def read_catalog(config: BlendConfig) -> Catalog:
    """Read the file list and open every shard once, or load what an earlier run kept.

    Raises:
        ConfigError: The file list cannot be used.
        ShardError: A shard cannot be used.
    """
    entries = read_file_list(Path(config.data_file_list))
    fractions = split_fractions(config.split)
    eod_id = config.eod_token_id if config.append_eod else None
    settings = _catalog_settings(config)

    def build() -> Catalog:
        return build_catalog(
            entries, lambda n: document_cuts(n, fractions), eod_id=eod_id, settings=settings
        )

    if config.data_cache_path is None:
        return build()
    return cached_catalog(Path(config.data_cache_path), entries, settings, build)


def _catalog_settings(config: BlendConfig) -> str:
    """Text of the settings that a catalog depends on."""
    eod = config.eod_token_id if config.append_eod else "as it is"
    return f"split {split_fractions(config.split)}, EOD {eod}"


def _build_split(
    config: BlendConfig, catalog: Catalog, files: OpenFiles, split: str
) -> BlendedDataset | None:
    s = SPLITS.index(split)
    if split_fractions(config.split)[s] == 0:
        return None
    usable = catalog.split_tokens(s) > 0
    shards_of_corpus: dict[str, list[int]] = {name: [] for name in sorted(set(catalog.corpora))}
    weights = dict.fromkeys(shards_of_corpus, 0.0)
    for shard, name in enumerate(catalog.corpora):
        weights[name] += float(catalog.weights[shard])
        if usable[shard]:
            shards_of_corpus[name].append(shard)
    if split == "train" and not usable.all():
        logger.warning(
            "train: %d of %d shards are too small to have a document for it; the other shards of "
            "their corpora are read in their place",
            int((~usable).sum()),
            len(usable),
        )
    shards_of_corpus = _without_empty(shards_of_corpus, split)
    if not shards_of_corpus:
        return None
    segment = Segment(0, {name: weights[name] for name in shards_of_corpus})
    return _blend_of(config, catalog, files, split, segment, shards_of_corpus)


def _without_empty(shards_of_corpus: dict[str, list[int]], split: str) -> dict[str, list[int]]:
    empty = [name for name, shards in shards_of_corpus.items() if not shards]
    if empty and split == "train":
        raise EmptySplitError(
            f"corpus {empty[0]!r} has no documents for training: every shard of it is too small "
            f"for the split. Join its shards into larger ones, or give train a larger part."
        )
    if empty:
        logger.warning("no documents for %s, left out of it: %s", split, ", ".join(empty))
    return {name: shards for name, shards in shards_of_corpus.items() if shards}


def _blend_of(
    config: BlendConfig,
    catalog: Catalog,
    files: OpenFiles,
    split: str,
    segment: Segment,
    shards_of_corpus: dict[str, list[int]],
) -> BlendedDataset:
    # A shard's place counts all shards of its corpus, also those that this split leaves out.
    places = _places(catalog.corpora)
    shards_of_row: list[list[int]] = []
    row_weights: list[list[float]] = []
    keys: list[int] = []
    for name, shards in shards_of_corpus.items():
        if config.blend_sample_in_corpus:
            shards_of_row += [[shard] for shard in shards]
            row_weights.append([float(catalog.weights[shard]) for shard in shards])
            keys += [stream_key(config.seed, split, name, places[shard]) for shard in shards]
        else:
            shards_of_row.append(shards)
            row_weights.append([1.0])
            keys.append(stream_key(config.seed, split, name))
    eod_id = config.eod_token_id
    rows = Rows.build(catalog, files, shards_of_row, split=SPLITS.index(split), eod_id=eod_id)
    seq_len = config.seq_length
    windows = WindowColumns(
        np.repeat(np.arange(len(row_weights)), [len(weights) for weights in row_weights]),
        num_windows(rows.num_tokens, seq_len=seq_len),
        tokens_left_over(rows.num_tokens, seq_len=seq_len),
        np.array(keys, np.uint64),
    )
    num_short = int((rows.num_tokens <= seq_len).sum())
    if num_short:
        logger.warning(
            "%s: %d of %d rows of documents have fewer than seq_length + 1 = %d tokens; their "
            "only window wraps around and repeats tokens",
            split,
            num_short,
            len(rows.num_tokens),
            seq_len + 1,
        )
    return BlendedDataset(config, split, [segment], rows, windows, BlendTrees.build(row_weights))


def _places(corpora: tuple[str, ...]) -> list[int]:
    """Place of each shard among the shards of its corpus."""
    counts: dict[str, int] = {}
    places: list[int] = []
    for name in corpora:
        places.append(counts.get(name, 0))
        counts[name] = places[-1] + 1
    return places

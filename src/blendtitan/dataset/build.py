"""From a configuration to datasets: the only place where they are put together."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from blendtitan.config import ORIGINAL_ORDER, SPLITS, BlendConfig, split_fractions
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.rows import Rows
from blendtitan.errors import ConfigError, EmptySplitError
from blendtitan.order.blend import Segment, check_changes, segments_of, total_weight
from blendtitan.order.slots import CorpusRows, SlotOrder
from blendtitan.order.splits import document_cuts
from blendtitan.storage.catalog import Catalog, build_catalog
from blendtitan.storage.file_list import ShardList, read_file_list
from blendtitan.storage.reader import OpenFiles
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

OTHER_ORDERS = {ORIGINAL_ORDER: "blendtitan.original.dataset"}
"""Modules of the orders around the core, imported only when used; each has ``build_splits``."""


class Datasets:
    """The splits of a blend; None where a split is empty.

    Train is built at once. Valid and test are built when they are first asked for: most processes
    need one split, and each costs time and memory for every shard.

    Args:
        build: Builds a split, given its name.
    """

    def __init__(self, build: Callable[[str], Dataset | None]) -> None:
        self._build = build
        self.train = build("train")

    @cached_property
    def valid(self) -> Dataset | None:
        """The validation split."""
        return self._build("valid")

    @cached_property
    def test(self) -> Dataset | None:
        """The test split."""
        return self._build("test")


def build_datasets(
    config: BlendConfig,
    catalog: Catalog | None = None,
    indices: Sequence[Any] | None = None,
) -> Datasets:
    """Build the splits of a blend.

    Args:
        config: What to read, and in which order.
        catalog: From ``read_catalog``, possibly of another process; None: it is read now.
        indices: From ``original_indices``, possibly of another process, for the original's order;
            None: they are found or built now.

    Raises:
        ConfigError: The file list cannot be used.
        ShardError: A shard cannot be used.
        EmptySplitError: A corpus has documents, but none of them for training; or, in the
            original's order, a shard has none for a split that is used.
    """
    catalog = catalog or read_catalog(config)
    if catalog.settings != _catalog_settings(config):
        raise ConfigError(
            f"the catalog was made with {catalog.settings}, expected {_catalog_settings(config)}"
        )
    files = OpenFiles(config.max_open_shards)
    if config.order in OTHER_ORDERS:
        module = import_module(OTHER_ORDERS[config.order])
        return Datasets(module.build_splits(config, catalog, files, indices).get)
    return Datasets(lambda split: _build_split(config, catalog, files, split))


def read_catalog(
    config: BlendConfig, *, check: Callable[[ShardList, Catalog], None] | None = None
) -> Catalog:
    """Read the file list and open every shard once, or load what an earlier run kept.

    Args:
        config: What to read.
        check: Called with the shards and their catalog; may raise, to refuse them.

    Raises:
        ConfigError: The file list cannot be used.
        ShardError: A shard cannot be used.
    """
    shards = read_file_list(Path(config.data_file_list))
    fractions = split_fractions(config.split)
    settings = _catalog_settings(config)

    def build() -> Catalog:
        return build_catalog(
            shards,
            lambda n: document_cuts(n, fractions),
            eod_id=config.eod_token_id if config.append_eod or _finds_documents(config) else None,
            inserts_eod=config.append_eod,
            settings=settings,
        )

    if config.data_cache_path is None:
        catalog = build()
    else:
        from blendtitan.storage.kept_catalog import kept_catalog

        catalog = kept_catalog(Path(config.data_cache_path), shards, settings, build)
    if check is not None:
        check(shards, catalog)
    return catalog


def _catalog_settings(config: BlendConfig) -> str:
    """Text of the settings that a catalog depends on."""
    eod = str(config.eod_token_id) if config.append_eod else "as it is"
    if not config.append_eod and _finds_documents(config):
        eod += f", telling documents apart by {config.eod_token_id}"
    return f"split {split_fractions(config.split)}, EOD {eod}"


def _finds_documents(config: BlendConfig) -> bool:
    return config.provide_attention_mask or config.eod_mask_loss


def _build_split(
    config: BlendConfig, catalog: Catalog, files: OpenFiles, split: str
) -> BlendedDataset | None:
    s = SPLITS.index(split)
    if split_fractions(config.split)[s] == 0:
        return None
    shards_of: dict[str, list[int]] = {name: [] for name in sorted(set(catalog.corpora))}
    for shard, name in enumerate(catalog.corpora):
        shards_of[name].append(shard)
    weights = {name: total_weight(catalog.weights[of].tolist()) for name, of in shards_of.items()}
    tokens = catalog.split_tokens(s).tolist()
    usable = {name: [i for i in shards if tokens[i]] for name, shards in shards_of.items()}
    _check_not_empty(usable, split)
    usable = {name: shards for name, shards in usable.items() if shards}
    if not usable:
        return None
    num_unusable = tokens.count(0)
    if split == "train" and num_unusable:
        logger.warning(
            "train: %d of %d shards are too small to have a document for it; the other shards of "
            "their corpora are read in their place",
            *(num_unusable, len(tokens)),
        )
    blended = config.blend_sample_in_corpus
    shards_of_row = [
        row
        for shards in usable.values()
        for row in ([[shard] for shard in shards] if blended else [shards])
    ]
    rows = Rows.build(catalog, files, shards_of_row, split=s, eod_id=config.eod_token_id)
    _warn_of_short_rows(rows, split, config.seq_length)
    weights = {name: weights[name] for name in usable}
    changes = [Segment(c.first_slot, c.shares) for c in config.segments if split == "train"]
    check_changes(changes, list(weights))
    segments = segments_of(weights, changes)
    order = SlotOrder.build(
        segments,
        {
            name: CorpusRows(
                [tokens[shard] for shard in shards],
                catalog.weights[shards].tolist(),
                [place for place, shard in enumerate(shards_of[name]) if tokens[shard] > 0],
            )
            if blended
            else CorpusRows([sum(tokens[shard] for shard in shards)], [1.0], [None])
            for name, shards in usable.items()
        },
        seed=config.seed,
        split=split,
        seq_len=config.seq_length,
        shuffled=config.shuffle_sample_in_corpus,
    )
    return BlendedDataset(config, split, rows, weights, segments, order)


def _check_not_empty(usable: Mapping[str, Sequence[int]], split: str) -> None:
    empty = [name for name, shards in usable.items() if not shards]
    if empty and split == "train":
        raise EmptySplitError(
            f"corpus {empty[0]!r} has no documents for training: every shard of it is too small "
            f"for the split. Join its shards into larger ones, or give train a larger part."
        )
    if empty:
        logger.warning("no documents for %s, left out of it: %s", split, ", ".join(empty))


def _warn_of_short_rows(rows: Rows, split: str, seq_len: int) -> None:
    num_short = int((rows.num_tokens <= seq_len).sum())
    if num_short:
        logger.warning(
            "%s: %d of %d rows of documents have fewer than seq_length + 1 = %d tokens; their "
            "only window wraps around and repeats tokens",
            *(split, num_short, len(rows.num_tokens), seq_len + 1),
        )

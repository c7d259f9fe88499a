"""Build datasets from a configuration; the only place that assembles them."""

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
from blendtitan.order.blend import Segment, total_weight
from blendtitan.order.segments import segments_of
from blendtitan.order.slots import CorpusRows, SlotOrder
from blendtitan.storage.catalog import Catalog, build_catalog
from blendtitan.storage.file_list import ShardList, read_file_list
from blendtitan.storage.reader import OpenFiles
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

OTHER_ORDERS = {ORIGINAL_ORDER: "blendtitan.original.dataset"}
"""Modules of other orders, imported only when used; each has ``build_splits``."""


class Datasets:
    """The splits of a blend: ``train``, ``valid`` and ``test``; None for an empty split.

    ``build_datasets`` makes it. Valid and test are built on first access, because most processes
    need one split, and each costs time and memory for every shard.
    """

    def __init__(self, build: Callable[[str], Dataset | None]) -> None:
        self._build = build
        self.train = build("train")
        """The training split."""

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
        config: The data to read, and its order.
        catalog: A catalog that ``read_catalog`` returned, in this process or another one. None:
            read it now.
        indices: Only for the original's order: indices that ``original_indices`` returned, in this
            process or another one. None: find or build them now.

    Raises:
        ConfigError: The file list cannot be used.
        ShardError: A shard cannot be used.
        EmptySplitError: A corpus has no documents for training, or, in the original's order, a
            shard has none for a used split.
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
    """Read the file list and open every shard once, or load the catalog of an earlier run.

    Args:
        config: The data to read.
        check: Called with the shards and their catalog; raises an error to reject them.

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
            eod_id=config.eod_token_id if config.append_eod or config.finds_documents else None,
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
    if config.removed_documents is not None:
        from blendtitan.storage.removed_documents import with_removed

        catalog = with_removed(catalog, config)
    return catalog


def _catalog_settings(config: BlendConfig) -> str:
    """Text of the settings that a catalog depends on."""
    eod = str(config.eod_token_id) if config.append_eod else "as it is"
    if not config.append_eod and config.finds_documents:
        eod += f", telling documents apart by {config.eod_token_id}"
    return f"split {split_fractions(config.split)}, EOD {eod}"


def _build_split(
    config: BlendConfig, catalog: Catalog, files: OpenFiles, split: str
) -> BlendedDataset | None:
    s = SPLITS.index(split)
    if split_fractions(config.split)[s] == 0:
        return None
    tokens = catalog.split_tokens(s).tolist()
    shards_of = catalog.shards_of_corpora()
    usable = _with_documents(shards_of, tokens, split)
    if not usable:
        return None
    blended = config.blend_sample_in_corpus
    shards_of_row = [
        row
        for shards in usable.values()
        for row in ([[shard] for shard in shards] if blended else [shards])
    ]
    rows = Rows.build(catalog, files, shards_of_row, split=s, eod_id=config.eod_token_id)
    if config.removed_documents is not None:
        from blendtitan.dataset.removed import without_removed

        rows = without_removed(rows)
    if (rows.num_tokens <= config.seq_length).any():
        from blendtitan.dataset.short_rows import warn_of_short_rows

        warn_of_short_rows(rows, split, config)
    weights = {name: total_weight(catalog.weights[shards_of[name]].tolist()) for name in usable}
    segments: tuple[Segment, ...] = (Segment(0, weights),)
    if config.segments and split == "train":
        segments = segments_of(weights, [Segment(c.first_slot, c.shares) for c in config.segments])
    order = SlotOrder.build(
        segments,
        {name: _corpus_rows(catalog, shards_of[name], tokens, blended=blended) for name in usable},
        seed=config.seed,
        split=split,
        seq_len=config.seq_length,
        shuffled=config.shuffle_sample_in_corpus,
    )
    return BlendedDataset(config, split, rows, weights, segments, order)


def _with_documents(
    shards_of: Mapping[str, Sequence[int]], tokens: Sequence[int], split: str
) -> dict[str, list[int]]:
    """The shards of each corpus that have documents in the split, without empty corpora."""
    usable = {name: [i for i in shards if tokens[i]] for name, shards in shards_of.items()}
    empty = [name for name, shards in usable.items() if not shards]
    if empty and split == "train":
        raise EmptySplitError(
            f"corpus {empty[0]!r} has no documents for training: each of its shards is too small "
            f"for the split. Merge its shards into larger ones, or give train a larger part."
        )
    if empty:
        logger.warning("no documents for %s, so excluded from it: %s", split, ", ".join(empty))
    if split == "train" and 0 in tokens:
        logger.warning(
            "train: %d of %d shards are too small to contribute a document; the other shards of "
            "their corpora are read instead",
            *(tokens.count(0), len(tokens)),
        )
    return {name: shards for name, shards in usable.items() if shards}


def _corpus_rows(
    catalog: Catalog, shards: Sequence[int], tokens: Sequence[int], *, blended: bool
) -> CorpusRows:
    """The rows of a corpus with these shards; ``tokens`` are those of all shards in the split."""
    if not blended:
        return CorpusRows([sum(tokens[shard] for shard in shards)], [1.0], [None])
    # A shard keeps its place even if a split leaves others out.
    used = [(place, shard) for place, shard in enumerate(shards) if tokens[shard]]
    return CorpusRows(
        [tokens[shard] for _, shard in used],
        catalog.weights[[shard for _, shard in used]].tolist(),
        [place for place, _ in used],
    )


def document_cuts(num_documents: int, fractions: tuple[float, float, float]) -> list[int]:
    """Cut the documents of one shard into train, valid and test.

    Args:
        num_documents: Documents of the shard.
        fractions: Share of each split; they sum to 1.

    Returns:
        Four growing numbers from 0 to ``num_documents``: split ``s`` has the documents
        ``cuts[s]`` to ``cuts[s + 1]``, the latter not included. Every document is in one split.

    Source: Megatron-LM, ``get_train_valid_test_split_``: each size is rounded to nearest (halves
    to even), and the excess or lack of the sum is moved to the first split that is not empty.
    """
    cuts = [0]
    for fraction in fractions:
        cuts.append(cuts[-1] + round(fraction * num_documents))
    excess = cuts[-1] - num_documents
    if excess == 0:
        return cuts
    # Megatron moves it to train even if train should be empty, or is smaller than the excess, and
    # then loses or repeats documents.
    first = next(s for s, fraction in enumerate(fractions) if fraction > 0)
    return [*cuts[: first + 1], *(max(0, cut - excess) for cut in cuts[first + 1 :])]

"""From a configuration to datasets: the only place where they are put together."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from blendtitan.config import SPLITS, BlendConfig, split_fractions
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.held import Shards, corpus_shards
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.order_index import IndexFile, OrderIndex
from blendtitan.dataset.original import OriginalDataset
from blendtitan.dataset.original_index import original_indices
from blendtitan.dataset.rows import Rows
from blendtitan.errors import ConfigError, EmptySplitError
from blendtitan.order.chapters import Chapter
from blendtitan.order.segments import Segment, check_changes, segments_of
from blendtitan.order.splits import document_cuts
from blendtitan.storage.catalog import Catalog, build_catalog
from blendtitan.storage.file_list import ShardList, read_file_list
from blendtitan.storage.reader import OpenFiles
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


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
    indices: Sequence[IndexFile | None] | None = None,
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
    if config.has_horizon:
        found = original_indices(config, catalog) if indices is None else indices
        built = {
            split: index
            and OriginalDataset.build(config, split, catalog, files, OrderIndex.open(index))
            for split, index in zip(SPLITS, found, strict=True)
        }
        return Datasets(built.get)
    known = Shards.of_catalog(catalog)
    return Datasets(lambda split: _build_split(config, catalog, known, files, split))


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
    tells_apart = config.append_eod or config.provide_attention_mask or config.eod_mask_loss
    settings = _catalog_settings(config)

    def build() -> Catalog:
        return build_catalog(
            shards,
            lambda n: document_cuts(n, fractions),
            eod_id=config.eod_token_id if tells_apart else None,
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
    if not config.append_eod and (config.provide_attention_mask or config.eod_mask_loss):
        eod += f", telling documents apart by {config.eod_token_id}"
    return f"split {split_fractions(config.split)}, EOD {eod}"


def _build_split(
    config: BlendConfig, catalog: Catalog, known: Shards, files: OpenFiles, split: str
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
    blended = config.blend_sample_in_corpus
    shards_of_row = [
        row
        for shards in shards_of_corpus.values()
        for row in ([[shard] for shard in shards] if blended else [shards])
    ]
    eod_id = config.eod_token_id
    rows = Rows.build(catalog, files, shards_of_row, split=s, eod_id=eod_id)
    _warn_of_short_rows(rows, split, config.seq_length)
    weights = {name: weights[name] for name in shards_of_corpus}
    changes = _changes(config) if split == "train" else []
    check_changes(changes, sorted(weights))
    chapter = Chapter(
        first_slot=0,
        seq_len=config.seq_length,
        segments=segments_of(weights, changes),
        corpora=corpus_shards(catalog, known, shards_of_corpus, split=split, blended=blended),
    )
    return BlendedDataset(config, split, rows, weights, [chapter])


def _changes(config: BlendConfig) -> list[Segment]:
    return [Segment(change.first_slot, change.shares) for change in config.segments]


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


def _warn_of_short_rows(rows: Rows, split: str, seq_len: int) -> None:
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

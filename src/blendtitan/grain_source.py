"""A split of a blend as a data source of Grain: index ``i`` is slot ``i`` of the global order.

    source = BlendSource(config, num_samples=steps * global_batch_size)
    batches = grain.MapDataset.source(source).batch(micro_batch)[dp_rank::dp_world_size]

Each rank of a run with these batches reads what ``blendtitan.DataLoader`` reads. Importing this
module imports neither Grain nor torch.
"""

import operator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import BlendConfig, check_at_least
from blendtitan.dataset.build import build_datasets, read_catalog
from blendtitan.dataset.documents import document_starts, positions_of
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import EmptySplitError
from blendtitan.state import digest_of
from blendtitan.storage.catalog import Catalog

IntArray = NDArray[np.int64]

_DIGEST_SLOTS = 4096


class Row(NamedTuple):
    """One sample. TorchTitan's ``TextCollator`` reads the first three."""

    input_ids: IntArray
    """Shape ``(L,)``."""

    labels: IntArray
    """The token after each input; -100 where the loss is masked. Shape ``(L,)``."""

    positions: IntArray
    """Offset of each token in its document with intra-document masking, otherwise in the row.
    Shape ``(L,)``."""

    corpus_id: int
    """Number of the corpus in ``BlendSource.corpora``."""


class BlendSource:
    """Samples 0 to ``num_samples - 1`` of a split, in the global order. Thread-safe.

    Worker processes get the catalog with the source and need not read the file list. Leave Grain's
    own shuffling off: the order is shuffled, and keeps the shares of the corpora everywhere.

    Args:
        config: The blend.
        split: ``train``, ``valid`` or ``test``.
        num_samples: Length. None: one pass over the split, in which a corpus with a large share may
            repeat and another may not be read to its end.
        catalog: The shards. None: read now.

    Raises:
        EmptySplitError: The split has no documents.
        ConfigError: The data cannot be used, or a number is out of range.
    """

    def __init__(
        self,
        config: BlendConfig,
        *,
        split: str = "train",
        num_samples: int | None = None,
        catalog: Catalog | None = None,
    ) -> None:
        self._config = config
        self._split = split
        self._catalog = read_catalog(config) if catalog is None else catalog
        self._dataset = self._open()
        if num_samples is not None:
            check_at_least("num_samples", num_samples, 1)
        self._num_samples = num_samples or self._dataset.num_windows

    def _open(self) -> Dataset:
        dataset = getattr(build_datasets(self._config, self._catalog), self._split)
        if dataset is None:
            raise EmptySplitError(
                f"{self._config.data_file_list}: no corpus has documents in the {self._split} "
                f"split, with split = {self._config.split!r}. Give it a larger part."
            )
        return dataset

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora, sorted."""
        return self._dataset.corpora

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, index: int) -> Row:
        slot = operator.index(index)
        slot += self._num_samples if slot < 0 else 0
        if not 0 <= slot < self._num_samples:
            raise IndexError(f"sample {index}, expected 0 to {self._num_samples - 1:,}")
        dataset, config = self._dataset, self._config
        sample = dataset[slot]
        corpus = dataset.corpora.index(sample.corpus)
        roles = None if dataset.eod_roles is None else dataset.eod_roles[[corpus]]
        eod_id = config.eod_token_id if config.provide_attention_mask else None
        starts = document_starts(sample.input_ids[None], eod_id=eod_id, roles=roles)
        return Row(sample.input_ids, sample.labels, positions_of(starts)[0], corpus)

    def build(self, *, dataset_iteration_policy: object = None) -> "BlendSource":
        """The source itself, where TorchTitan's ``SingleDatasetConfig`` expects its settings."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_dataset"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._dataset = self._open()

    def __repr__(self) -> str:
        # Grain saves it with the position of an iterator.
        slots = np.arange(min(self._num_samples, _DIGEST_SLOTS))
        order = digest_of(self._dataset.sample_ids(slots))
        size = f"{self._num_samples:,} samples of {self._config.seq_length:,} tokens"
        return f"BlendSource({self._split}: {size}, order {order})"

"""The interface of a dataset in any order, for loaders, states and metrics."""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import BlendConfig
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.sample import Sample
from blendtitan.order.blend import Segment
from blendtitan.storage.catalog import Catalog

IntArray = NDArray[np.int64]


class History(Protocol):
    """The past of a resumed run; see ``history/run.py``."""

    @property
    def segments_read(self) -> Sequence[Segment]:
        """Stretches with constant shares, of the whole run as read and as planned."""
        ...

    def samples_before(self, slot: int) -> int:
        """Number of slots before a slot that the run does not skip."""
        ...

    def first_draws(self, corpora: Sequence[str]) -> IntArray:
        """Draw of each corpus at the first slot of the present phase."""
        ...

    def draws_before(self, slot: int, corpora: Sequence[str]) -> IntArray:
        """Number of samples of each corpus before a slot. Shape ``(num_corpora,)``."""
        ...

    def tokens_before(self, slot: int, corpora: Sequence[str]) -> IntArray:
        """Tokens of each corpus in the first ``slot`` samples. Shape ``(num_corpora,)``."""
        ...

    def with_segments(
        self, dataset: BlendedDataset, segments: tuple[Segment, ...]
    ) -> BlendedDataset:
        """The dataset with other segments in its last phase."""
        ...


class PlannedSlots(Protocol):
    """Slots resolved to samples."""

    @property
    def corpora(self) -> IntArray:
        """Number of each sample's corpus. Shape ``(n,)``."""
        ...


class Dataset(Protocol):
    """One split of a blend: samples by slot, in the global order."""

    config: BlendConfig
    split: str

    @property
    def catalog(self) -> Catalog:
        """All shards of the blend."""
        ...

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora, sorted. A corpus's number is its place here."""
        ...

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Stretches with constant shares, of the whole run as planned now."""
        ...

    @property
    def segments_read(self) -> Sequence[Segment]:
        """Stretches with constant shares, of the whole run as read and as planned."""
        ...

    @property
    def first_slot(self) -> int:
        """The first slot that can be read."""
        ...

    @property
    def num_windows(self) -> int:
        """Samples of one pass over the split."""
        ...

    @property
    def corpus_tokens(self) -> IntArray:
        """Tokens that each corpus has in this split. Shape ``(num_corpora,)``."""
        ...

    @property
    def eod_roles(self) -> NDArray[np.uint8] | None:
        """The place of EOD in the documents of each corpus; see ``corpus_eod_roles``."""
        ...

    @property
    def token_dtype(self) -> np.dtype[Any]:
        """Type of the tokens that ``read`` returns."""
        ...

    def samples_before(self, slot: int) -> int:
        """Number of slots before a slot that the run does not skip."""
        ...

    def draws_before(self, slot: int) -> IntArray:
        """Number of samples of each corpus before a slot. Shape ``(num_corpora,)``."""
        ...

    def tokens_before(self, slot: int) -> IntArray:
        """Tokens of each corpus in the first ``slot`` samples. Shape ``(num_corpora,)``."""
        ...

    def only(self, corpus: str) -> Self:
        """The samples of one corpus alone, in the order of its draws."""
        ...

    def once(self) -> Self:
        """Every window of the split once, in ``num_windows`` slots."""
        ...

    def with_changes(self, changes: Sequence[Segment]) -> Self:
        """The same with other shares from some slots on."""
        ...

    def __getitem__(self, slot: int) -> Sample:
        """The sample of a slot."""
        ...

    def plan(self, slots: IntArray) -> PlannedSlots:
        """Resolve slots, of shape ``(n,)``, to places on disk, without reading any tokens."""
        ...

    def sample_ids(self, slots: IntArray) -> NDArray[np.uint64]:
        """The ids of the samples of some slots. Shapes ``(n,)``."""
        ...

    # Each kind of dataset has its own kind of plan.
    def read(self, plan: Any, start: int, stop: int) -> NDArray[np.integer]:
        """Tokens of samples ``start`` to ``stop`` of a plan. Shape ``(stop - start, L + 1)``."""
        ...

    def fixed_facts(self) -> dict[str, Any]:
        """The settings that the order and the tokens depend on and that a run never changes."""
        ...

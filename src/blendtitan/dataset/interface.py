"""What loaders, states and metrics need of a dataset, whichever order it is in."""

from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import BlendConfig
from blendtitan.dataset.plan import Sample
from blendtitan.order.segments import Segment


class PlannedSlots(Protocol):
    """Slots resolved to samples. Arrays have the shape ``(n,)``."""

    @property
    def slots(self) -> NDArray[np.int64]:
        """The slots."""
        ...

    @property
    def corpora(self) -> NDArray[np.int64]:
        """Number of each sample's corpus."""
        ...

    @property
    def sample_ids(self) -> NDArray[np.uint64]:
        """A number that tells samples apart."""
        ...


class Dataset(Protocol):
    """One split of a blend: samples by slot, in the global order."""

    config: BlendConfig
    split: str
    segments: tuple[Segment, ...]

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora, sorted. A corpus's number is its place here."""
        ...

    @property
    def num_windows(self) -> int:
        """Samples of one pass over the split."""
        ...

    @property
    def corpus_tokens(self) -> NDArray[np.int64]:
        """Tokens that each corpus has in this split. Shape ``(num_corpora,)``."""
        ...

    @property
    def token_dtype(self) -> np.dtype[Any]:
        """Type of the tokens that ``read`` returns."""
        ...

    def draws_before(self, slot: int) -> NDArray[np.int64]:
        """How many of the first ``slot`` samples each corpus has. Shape ``(num_corpora,)``."""
        ...

    def only(self, corpus: str) -> Self:
        """The samples of one corpus alone, in the order of its draws."""
        ...

    def __getitem__(self, slot: int) -> Sample:
        """The sample of a slot."""
        ...

    def plan(self, slots: NDArray[np.int64]) -> PlannedSlots:
        """Resolve slots to places on disk, without reading any tokens."""
        ...

    # Whose plan it is, only the dataset knows.
    def read(self, plan: Any, start: int, stop: int) -> NDArray[np.integer]:
        """Tokens of samples ``start`` to ``stop`` of a plan. Shape ``(stop - start, L + 1)``."""
        ...

    def corpora_held(self) -> dict[str, dict[str, Any]]:
        """What each corpus holds on disk."""
        ...

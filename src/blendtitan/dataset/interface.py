"""What loaders, states and metrics need of a dataset, whichever order it is in."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import BlendConfig
from blendtitan.dataset.plan import Sample
from blendtitan.order.chapters import Chapter
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
    chapters: tuple[Chapter, ...]
    """The history of the run; the last chapter is the one that is read. Empty where the order
    knows none."""

    @property
    def first_slot(self) -> int:
        """The first slot that can be read."""
        ...

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Stretches with constant shares, of the whole run as it is planned now."""
        ...

    @property
    def segments_read(self) -> list[Segment]:
        """Stretches with constant shares, of the whole run as it was and is to be read."""
        ...

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora, sorted. A corpus's number is its place here."""
        ...

    @property
    def eod_roles(self) -> NDArray[np.uint8] | None:
        """Where EOD stands in the documents of each corpus; see ``corpus_eod_roles``."""
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

    def tokens_before(self, slot: int) -> NDArray[np.int64]:
        """Tokens of each corpus in the first ``slot`` samples. Shape ``(num_corpora,)``."""
        ...

    def only(self, corpus: str) -> Self:
        """The samples of one corpus alone, in the order of its draws."""
        ...

    def once(self) -> Self:
        """Every window of the split once, in ``num_windows`` slots."""
        ...

    def __getitem__(self, slot: int) -> Sample:
        """The sample of a slot."""
        ...

    def plan(self, slots: NDArray[np.int64]) -> PlannedSlots:
        """Resolve slots to places on disk, without reading any tokens."""
        ...

    def sample_ids(self, slots: NDArray[np.int64]) -> NDArray[np.uint64]:
        """What ``plan`` has as ``sample_ids``, without the places on disk."""
        ...

    # Whose plan it is, only the dataset knows.
    def read(self, plan: Any, start: int, stop: int) -> NDArray[np.integer]:
        """Tokens of samples ``start`` to ``stop`` of a plan. Shape ``(stop - start, L + 1)``."""
        ...

    def with_changes(self, changes: Sequence[Segment]) -> Self:
        """The same with other shares from some slots on."""
        ...

    def in_next_chapter(self, chapters: Sequence[Chapter], slot: int) -> Self:
        """The same data as what a run with these chapters goes on with at ``slot``."""
        ...

    def in_chapters(
        self, chapters: Sequence[Chapter], held: Mapping[str, Any] | None = None
    ) -> Self:
        """This dataset after the given chapters, of which the last describes it.

        ``held`` is what a checkpoint recorded of the corpora.
        """
        ...

    def fixed_facts(self) -> dict[str, Any]:
        """What the order and the tokens depend on and never changes in a run. JSON."""
        ...

    def chapter_facts(self) -> dict[str, Any]:
        """What the order depends on and only another chapter may change. JSON."""
        ...

    def checksums(self) -> dict[str, str]:
        """Checksums of each corpus's shards that are known; no fact that the order depends on."""
        ...

    def changed_checksums(self, saved: Mapping[str, str]) -> list[str]:
        """For each shard with another checksum than the saved one, a line about it."""
        ...

    def account(self) -> list[str]:
        """How each corpus goes on in the last chapter."""
        ...

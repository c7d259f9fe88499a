"""Slots: the window of a row of documents at each place in the global order.

Windows are cut from a row: one shard, or all shards of a corpus. Draw ``d`` of a row of
``N`` windows is, in epoch ``d // N``, the window at place ``d mod N`` of that epoch's order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError
from blendtitan.order.blend import BlendOrder, BlendTrees, Segment
from blendtitan.order.epoch import (
    Bits,
    epoch_keys,
    epoch_shifts,
    mix64,
    num_windows,
    permute,
    stream_keys,
    tokens_left_over,
    window_starts,
)

if TYPE_CHECKING:
    from blendtitan.order.begun import Begun

IntArray = NDArray[np.int64]

NO_CORPUS = -1
"""Stands for the number of a corpus that is not drawn."""


class CorpusRows(NamedTuple):
    """The rows of one corpus. Each list has one entry per row."""

    tokens: Sequence[int]
    weights: Sequence[float]
    """Weights that blend the rows of the corpus."""
    places: Sequence[int | None]
    """Selects the order within a row: the shard's place in its corpus. None: all shards."""


@dataclass(frozen=True, slots=True)
class Places:
    """The windows of some slots. Arrays have the shape ``(n,)``."""

    corpora: IntArray
    draws: IntArray
    """Draw of the corpus, counted from the order's first slot."""
    rows: IntArray
    epochs: IntArray
    windows: IntArray
    starts: IntArray
    """Offset of the window in its row, in tokens."""
    sample_ids: Bits
    """Identifies the sample, independently of other corpora."""
    is_remainder: NDArray[np.bool_] | None = None
    """True where the window is cut from a remainder, which ``starts`` then counts in. None: no
    window is; see ``history/remainder.py``."""


@dataclass(frozen=True, slots=True)
class SlotOrder:
    """The window of each slot. Rows are numbered through all corpora; columns are ``(R,)``."""

    seq_len: int
    shuffled: bool
    """Whether the windows of an epoch are permuted."""
    blend: BlendOrder
    trees: BlendTrees
    """One for each corpus; its leaves are the rows of the corpus."""
    row_corpora: IntArray
    """Number of each row's corpus, or ``NO_CORPUS``."""
    row_windows: IntArray
    """Windows of one epoch of each row."""
    left_over: IntArray
    """Tokens of each row that an epoch leaves out."""
    keys: Bits
    first_slot: int = 0
    begun: "Begun | None" = None
    """None: every row begins with its first window."""

    @classmethod
    def build(
        cls,
        segments: Sequence[Segment],
        corpora: Mapping[str, CorpusRows],
        *,
        seed: int,
        split: str,
        seq_len: int,
        shuffled: bool,
    ) -> Self:
        """The order of a blend.

        Args:
            segments: Segments of the blend; the first begins at slot 0.
            corpora: The rows of each corpus, sorted by name.
            seed: Seed of the run.
            split: Name of the split.
            seq_len: Length of a model input, in tokens.
            shuffled: Whether the windows of an epoch are permuted.
        """
        rows = corpora.values()
        tokens = np.array([count for each in rows for count in each.tokens], np.int64)
        keys = [key for name in corpora for key in stream_keys(seed, split, name, corpora[name][2])]
        return cls(
            seq_len=seq_len,
            shuffled=shuffled,
            blend=BlendOrder.build(segments, corpora),
            trees=BlendTrees.build([each.weights for each in rows]),
            row_corpora=np.repeat(np.arange(len(rows)), [len(each.tokens) for each in rows]),
            row_windows=num_windows(tokens, seq_len=seq_len),
            left_over=tokens_left_over(tokens, seq_len=seq_len),
            keys=np.array(keys, np.uint64),
        )

    @property
    def num_windows(self) -> int:
        """Windows of one epoch of all corpora together."""
        return int(self.row_windows[self.row_corpora != NO_CORPUS].sum())

    def only(self, corpus: str) -> Self:
        """One corpus alone: its slot ``d`` is draw ``d`` of the corpus here."""
        number = self.blend.corpora.index(corpus)
        return replace(
            self,
            blend=BlendOrder.build([Segment(0, {corpus: 1.0})]),
            trees=replace(self.trees, roots=self.trees.roots[[number]]),
            row_corpora=np.where(self.row_corpora == number, 0, NO_CORPUS),
            begun=self.begun and self.begun.only(number),
        )

    def places(self, slots: IntArray) -> Places:
        """The windows of some slots, none of them before ``first_slot``. Shape ``(n,)``."""
        corpora, draws = self.blend.draws(slots - self.first_slot)
        if self.begun is not None:
            return self.begun.places(self, corpora, draws)
        rows, row_draws = self.trees.leaves(corpora, draws)
        epochs, index = np.divmod(row_draws, self.row_windows[rows])
        return self.places_in_epochs(corpora, draws, rows, epochs, index)

    def places_in_epochs(
        self, corpora: IntArray, draws: IntArray, rows: IntArray, epochs: IntArray, index: IntArray
    ) -> Places:
        """The windows at places ``index`` of epochs of rows. All shapes are ``(n,)``."""
        keys = epoch_keys(self.keys[rows], epochs)
        windows = permute(index, self.row_windows[rows], keys) if self.shuffled else index
        shifts = epoch_shifts(keys, epochs, self.left_over[rows])
        starts = window_starts(windows, shifts, seq_len=self.seq_len)
        sample_ids = mix64(keys + starts.astype(np.uint64))
        return Places(corpora, draws, rows, epochs, windows, starts, sample_ids)

    def stretches(self, places: Places, at: int) -> list[tuple[int, int]]:
        """The pieces of a window, as ``(offset, tokens)`` in its row."""
        start = int(places.starts[at])
        if places.is_remainder is None or not places.is_remainder[at]:
            return [(start, self.seq_len + 1)]
        assert self.begun is not None
        return self.begun.stretches(int(places.rows[at]), start, self.seq_len)


# Slots are resolved this many at a time: enough to spread the cost of the NumPy calls.
_BLOCK_SLOTS = 4096


@dataclass(frozen=True)
class Course:
    """The slots of the global order that one rank reads, micro batch by micro batch.

    The ranks together read ``micro_batch * dp_world_size`` consecutive slots; rank ``r`` reads the
    ``r``-th group of ``micro_batch``. So ``consumed_samples`` is the whole state of the loader, on
    any number of ranks. ``order/course.py`` leaves out slots, or deals those of a step otherwise.

    Raises:
        ConfigError: ``dp_rank`` is not below ``dp_world_size``.
    """

    micro_batch: int
    dp_rank: int
    dp_world_size: int

    def __post_init__(self) -> None:
        if not 0 <= self.dp_rank < self.dp_world_size:
            raise ConfigError(f"dp_rank is {self.dp_rank}, expected 0 to {self.dp_world_size - 1}")

    @property
    def stride(self) -> int:
        """Samples in one micro batch of all ranks together."""
        return self.micro_batch * self.dp_world_size

    def after(self, consumed_samples: int) -> int:
        """``consumed_samples`` after one more micro batch of all ranks."""
        return consumed_samples + self.stride

    def between_steps(self, consumed_samples: int) -> int:
        """``consumed_samples``, if a state may be saved or loaded there."""
        return consumed_samples

    def block(self, consumed_samples: int) -> tuple[int, int]:
        """The micro batches that are resolved together with the next one.

        Returns:
            ``consumed_samples`` at the first of them, and the index of the next one among them.
        """
        index = consumed_samples // self.stride % max(1, _BLOCK_SLOTS // self.micro_batch)
        return consumed_samples - index * self.stride, index

    def slots(self, start: int) -> IntArray:
        """This rank's slots in the block that begins at ``start``. Shape ``(n, micro_batch)``."""
        steps = np.arange(max(1, _BLOCK_SLOTS // self.micro_batch))[:, None] * self.stride
        return start + self.dp_rank * self.micro_batch + steps + np.arange(self.micro_batch)

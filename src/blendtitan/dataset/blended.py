"""The samples of slots of the global order."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import MAX_SLOT, BlendConfig, split_fractions
from blendtitan.dataset.documents import corpus_eod_roles
from blendtitan.dataset.faults import slots_error, vocabulary_error, whereabouts
from blendtitan.dataset.rows import Rows
from blendtitan.dataset.stretches import read_stretch
from blendtitan.errors import BlendTitanError
from blendtitan.order.blend import BlendOrder, Segment
from blendtitan.order.once import EachWindowOnce
from blendtitan.order.segments import segments_of
from blendtitan.order.slots import NO_CORPUS, Places, SlotOrder
from blendtitan.storage.catalog import Catalog

if TYPE_CHECKING:
    from blendtitan.dataset.interface import History
    from blendtitan.dataset.sample import Sample

IntArray = NDArray[np.int64]

ORDER_VERSION = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """The stored places of the samples of some slots. Arrays have the shape ``(n,)``."""

    slots: IntArray
    places: Places
    shards: IntArray
    """Shard that holds the first token."""
    at_bytes: IntArray
    """Byte of that shard's ``.bin`` at which the window starts; -1 if it is not contiguous."""

    @property
    def corpora(self) -> IntArray:
        """Number of each sample's corpus."""
        return self.places.corpora


class BlendedDataset:
    """One split of a blend: an endless sequence of samples, in the global order.

    ``build_datasets`` makes it. ``dataset[slot]`` reads one sample. Thread-safe.

    Args:
        config: Settings of the blend.
        split: Name of the split.
        rows: The rows of documents that windows are cut from.
        weights: Weight of each corpus, as in the file list.
        segments: Stretches of the run with constant shares, as planned now.
        order: The window of each slot.
        history: The past of the run. None: the run was not resumed.
    """

    def __init__(
        self,
        config: BlendConfig,
        split: str,
        rows: Rows,
        weights: Mapping[str, float],
        segments: Sequence[Segment],
        order: SlotOrder,
        history: "History | None" = None,
    ) -> None:
        self.config = config
        self.split = split
        self.rows = rows
        self.weights = weights
        self.segments = tuple(segments)
        self.order = order
        self.history = history

    @property
    def eod_roles(self) -> NDArray[np.uint8] | None:
        """The role of EOD in the documents of each corpus; see ``corpus_eod_roles``."""
        return self._eod_roles

    @cached_property
    def _eod_roles(self) -> NDArray[np.uint8] | None:
        return corpus_eod_roles(self.catalog, self.corpora)

    @property
    def catalog(self) -> Catalog:
        """All shards of the blend."""
        return self.rows.catalog

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora, sorted. A corpus's number is its index here."""
        return self.order.blend.corpora

    @property
    def first_slot(self) -> int:
        """The first readable slot: the start of the present phase."""
        return self.order.first_slot

    @property
    def num_windows(self) -> int:
        """Number of windows in one epoch of all corpora together."""
        return self.order.num_windows

    @property
    def corpus_tokens(self) -> IntArray:
        """Tokens of each corpus in this split. Shape ``(num_corpora,)``."""
        tokens = np.zeros(len(self.corpora), np.int64)
        own = self.order.row_corpora != NO_CORPUS
        np.add.at(tokens, self.order.row_corpora[own], self.rows.num_tokens[own])
        return tokens

    @property
    def token_dtype(self) -> np.dtype[Any]:
        """Type of the tokens that ``read`` returns."""
        return self.rows.dtype

    @property
    def segments_read(self) -> Sequence[Segment]:
        """Stretches of the run with constant shares: the past as read, the future as planned."""
        return self.segments if self.history is None else self.history.segments_read

    def fixed_facts(self) -> dict[str, Any]:
        """The settings that the order and the tokens depend on and that a run never changes."""
        config = self.config
        return {
            "order": ORDER_VERSION,
            "seed": config.seed,
            "split": self.split,
            "split_fractions": list(split_fractions(config.split)),
            "shuffle_sample_in_corpus": config.shuffle_sample_in_corpus,
            "blend_sample_in_corpus": config.blend_sample_in_corpus,
            "append_eod": config.append_eod,
            "eod_token_id": config.eod_token_id,
        }

    def samples_before(self, slot: int) -> int:
        """Number of slots before a slot that the run does not skip."""
        return slot if self.history is None else self.history.samples_before(slot)

    def draws_before(self, slot: int) -> IntArray:
        """Number of samples of each corpus before a slot. Shape ``(num_corpora,)``."""
        if self.history is not None:
            return self.history.draws_before(slot, self.corpora)
        return self.order.blend.draws_before(max(0, slot - self.first_slot))

    def tokens_before(self, slot: int) -> IntArray:
        """Number of tokens of each corpus read before a slot. Shape ``(num_corpora,)``."""
        if self.history is not None:
            return self.history.tokens_before(slot, self.corpora)
        return self.draws_before(slot) * self.config.seq_length

    def with_changes(self, changes: Sequence[Segment]) -> "BlendedDataset":
        """The same dataset with other shares from the given slots on; see ``segments_of``.

        Raises:
            ConfigError: A change names an unknown corpus, leaves none, or does not begin after the
                previous one.
        """
        segments = segments_of(self.weights, changes)
        if self.history is not None:
            return self.history.with_segments(self, segments)
        order = replace(self.order, blend=BlendOrder.build(segments, self.corpora))
        return BlendedDataset(self.config, self.split, self.rows, self.weights, segments, order)

    def only(self, corpus: str) -> "BlendedDataset":
        """The samples of one corpus: slot ``d`` is draw ``d`` of the corpus."""
        return self._ordered([Segment(0, {corpus: 1.0})], self.order.only(corpus))

    def once(self) -> "BlendedDataset":
        """Every window of the split exactly once, in slots 0 to ``num_windows - 1``."""
        return self._ordered(self.segments, EachWindowOnce.of(self.order))

    def _ordered(self, segments: Sequence[Segment], order: SlotOrder) -> "BlendedDataset":
        rows = self.rows if self.rows.removed is None else self.rows.removed.always(self.rows)
        return BlendedDataset(self.config, self.split, rows, self.weights, segments, order)

    def __getitem__(self, slot: int) -> "Sample":
        """Read the sample of a slot. Raises the errors of ``plan`` and ``read``."""
        from blendtitan.dataset.sample import read_sample

        slot = operator.index(slot)
        self._check_slots(slot, slot)
        return read_sample(self, slot)

    def plan(self, slots: IntArray) -> Plan:
        """Resolve slots, of shape ``(n,)``, to places on disk, without reading any file.

        Raises:
            ConfigError: A slot is before ``first_slot``, or not below 10^15.
        """
        if len(slots):
            self._check_slots(int(slots.min()), int(slots.max()))
        places = self.order.places(slots)
        firsts = places.starts
        if places.is_remainder is not None:
            assert self.order.begun is not None
            firsts = self.order.begun.first_tokens(places)
        positions = self.rows.row_starts[places.rows] + firsts
        pieces = self.rows.pieces(positions)
        at_bytes = self.rows.contiguous_bytes(pieces, positions, self.config.seq_length + 1)
        if places.is_remainder is not None:
            at_bytes[places.is_remainder] = -1
        return Plan(slots, places, self.rows.piece_shards[pieces], at_bytes)

    def sample_ids(self, slots: IntArray) -> NDArray[np.uint64]:
        """The ids of the samples of some slots. Shapes ``(n,)``."""
        return self.order.places(slots).sample_ids

    def read(self, plan: Plan, start: int, stop: int) -> NDArray[np.integer]:
        """Tokens of samples ``start`` to ``stop`` of a plan. Shape ``(stop - start, L + 1)``.

        Raises:
            ShardError: A shard is missing, damaged, or contains a token outside the vocabulary. A
                note on it names the slot, corpus, shard and offset.
        """
        tokens = np.empty((stop - start, self.config.seq_length + 1), self.token_dtype)
        if self.rows.is_remote:
            from blendtitan.dataset.remote_reads import read_ahead

            read_ahead(self.rows, plan, start, tokens)
        shards, at_bytes = plan.shards[start:stop].tolist(), plan.at_bytes[start:stop].tolist()
        i = 0
        try:
            for i, (shard, at) in enumerate(zip(shards, at_bytes, strict=True)):
                if at >= 0:
                    self.rows.read_contiguous(shard, at, tokens[i])
                else:
                    self._read_stretches(plan, start + i, tokens[i])
        except (BlendTitanError, OSError) as error:
            error.add_note(whereabouts(self, plan, start + i))
            raise
        if self.rows.removed is not None:
            from blendtitan.dataset.removed import blank_removed

            blank_removed(tokens, self, plan, start)
        limit = self.config.vocab_size
        if limit is not None and not all_below(tokens, limit):
            raise vocabulary_error(self, plan, start, tokens)
        return tokens

    def _read_stretches(self, plan: Plan, at: int, out: NDArray[np.integer]) -> None:
        filled = 0
        for offset, count in self.order.stretches(plan.places, at):
            read_stretch(self.rows, int(plan.places.rows[at]), offset, out[filled : filled + count])
            filled += count

    def _check_slots(self, first: int, last: int) -> None:
        if not self.first_slot <= first <= last < MAX_SLOT:
            raise slots_error(first, last, self.first_slot)


def all_below(tokens: NDArray[np.integer], limit: int) -> bool:
    """Whether all tokens are from 0 to ``limit - 1``. Skips checks that the dtype guarantees."""
    info = np.iinfo(tokens.dtype)
    return bool((info.max < limit or tokens.max() < limit) and (info.min == 0 or tokens.min() >= 0))

"""From slots of the global order to samples."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import MAX_SLOT, BlendConfig, split_fractions
from blendtitan.dataset.eod import corpus_eod_roles, starts_document
from blendtitan.dataset.held import changed_checksums, checksums_held, corpora_held
from blendtitan.dataset.plan import Plan, Sample
from blendtitan.dataset.rows import Rows
from blendtitan.errors import BlendTitanError, ConfigError, VocabularyError
from blendtitan.order.chapters import (
    NO_CORPUS,
    Chapter,
    ChapterOrder,
    OrderSettings,
    draws_before,
    segments_read,
)
from blendtitan.order.next_chapter import account, with_next_chapter
from blendtitan.order.once import EachWindowOnce
from blendtitan.order.saved_chapters import saved_segments
from blendtitan.order.segments import Segment, as_recorded, check_changes, segments_of

IntArray = NDArray[np.int64]

IGNORE_INDEX = -100
"""Label that PyTorch's cross entropy leaves out."""

ORDER_VERSION = 1


class BlendedDataset:
    """One split of a blend: an endless sequence of samples, in the global order.

    Reading is safe from several threads at once.

    Args:
        config: Settings of the blend.
        split: Name of the split.
        rows: What the samples are read from.
        weights: Weight of each corpus, as the file list gives it.
        chapters: The chapters of the run so far. The last is that of ``config`` and ``rows``.
        order: The order of the last chapter, where it is another than that of its corpora.
        held: What each corpus holds, as a checkpoint recorded it for the weights of its chapters.
            None: as the catalog has it.
    """

    def __init__(
        self,
        config: BlendConfig,
        split: str,
        rows: Rows,
        weights: Mapping[str, float],
        chapters: Sequence[Chapter],
        order: ChapterOrder | None = None,
        held: Mapping[str, Any] | None = None,
    ) -> None:
        assert config.seq_length == chapters[-1].seq_len
        self.config = config
        self.split = split
        self.weights = weights
        self.chapters = tuple(chapters)
        self.settings = OrderSettings(
            seed=config.seed,
            split=split,
            shuffled=config.shuffle_sample_in_corpus,
            blended=config.blend_sample_in_corpus,
        )
        self._rows = rows
        self._held = held
        self._order = order or ChapterOrder.build(chapters[-1], self.settings)
        self.eod_roles = corpus_eod_roles(rows.catalog, self.corpora)
        """Where EOD stands in the documents of each corpus."""
        before = draws_before(chapters, chapters[-1].first_slot)
        self._draws_before_chapter = np.array(
            [sum(draws.get(name, 0) for draws in before) for name in self.corpora], np.int64
        )

    def in_chapters(
        self, chapters: Sequence[Chapter], held: Mapping[str, Any] | None = None
    ) -> "BlendedDataset":
        """This dataset after the given chapters, of which the last describes it."""
        return BlendedDataset(
            self.config, self.split, self._rows, self.weights, chapters, held=held
        )

    def in_next_chapter(self, chapters: Sequence[Chapter], slot: int) -> "BlendedDataset":
        """The same data as what a run with these chapters goes on with at ``slot``."""
        return self.in_chapters(
            with_next_chapter(
                chapters,
                self.settings,
                slot=slot,
                seq_len=self.config.seq_length,
                segments=self.segments,
                corpora=self.chapters[-1].corpora,
            )
        )

    def account(self) -> list[str]:
        """How each corpus goes on in the last chapter."""
        return list(account(self.chapters, self.settings))

    def with_changes(self, changes: Sequence[Segment]) -> "BlendedDataset":
        """The same with other shares from some slots on; see ``segments_of``.

        Raises:
            ConfigError: A change names an unknown corpus, leaves none, or its slot is not above
                that of the one before.
        """
        check_changes(changes, self.corpora)
        *before, now = self.chapters
        segments = as_recorded(segments_of(self.weights, changes), now.segments)
        return self.in_chapters([*before, replace(now, segments=segments)], self._held)

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora, sorted. A corpus's number is its place here."""
        return self._order.blend.corpora

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Stretches with constant shares, of the whole run as it is planned now."""
        return self.chapters[-1].segments

    @property
    def segments_read(self) -> list[Segment]:
        """Stretches with constant shares, of the whole run as it was and is to be read."""
        return segments_read(self.chapters)

    @property
    def first_slot(self) -> int:
        """The first slot that can be read: where the last chapter begins."""
        return self.chapters[-1].first_slot

    @property
    def num_windows(self) -> int:
        """Windows of one epoch of all corpora together."""
        return self._order.num_windows

    @property
    def corpus_tokens(self) -> IntArray:
        """Tokens that each corpus has in this split. Shape ``(num_corpora,)``."""
        tokens = np.zeros(len(self.corpora), np.int64)
        own = self._order.row_corpora != NO_CORPUS
        np.add.at(tokens, self._order.row_corpora[own], self._rows.num_tokens[own])
        return tokens

    @property
    def token_dtype(self) -> np.dtype[Any]:
        """Type of the tokens that ``read`` returns."""
        return self._rows.dtype

    def draws_before(self, slot: int) -> IntArray:
        """How many of the first ``slot`` samples each corpus has. Shape ``(num_corpora,)``."""
        return self._summed(slot, lambda chapter: 1)

    def tokens_before(self, slot: int) -> IntArray:
        """Tokens of each corpus in the first ``slot`` samples. Shape ``(num_corpora,)``."""
        return self._summed(slot, lambda chapter: chapter.seq_len)

    def _summed(self, slot: int, each: Callable[[Chapter], int]) -> IntArray:
        found = list(zip(self.chapters, draws_before(self.chapters, slot), strict=True))
        return np.array(
            [
                sum(draws.get(name, 0) * each(chapter) for chapter, draws in found)
                for name in self.corpora
            ],
            np.int64,
        )

    def only(self, corpus: str) -> "BlendedDataset":
        """The samples of one corpus alone: slot ``d`` is what here is draw ``d`` of the corpus."""
        alone = Segment(0, {corpus: 1.0})
        now = self.chapters[-1]
        chapter = replace(now, segments=(alone,), corpora={corpus: now.corpora[corpus]})
        order = self._order.only(corpus)
        return BlendedDataset(self.config, self.split, self._rows, self.weights, [chapter], order)

    def once(self) -> "BlendedDataset":
        """Every window of the split once, in ``num_windows`` slots."""
        chapter = self.chapters[-1]
        order = EachWindowOnce.of(self._order)
        return BlendedDataset(self.config, self.split, self._rows, self.weights, [chapter], order)

    def __getitem__(self, slot: int) -> Sample:
        """The sample of a slot, any slot from 0 on."""
        slot = operator.index(slot)
        self._check_slots(slot, slot)
        plan = self.plan(np.array([slot], np.int64))
        tokens = self.read(plan, 0, 1)[0]
        input_ids, labels = tokens[:-1].astype(np.int64), tokens[1:].astype(np.int64)
        of_sample = None if self.eod_roles is None else self.eod_roles[plan.corpora]
        mask_labels(labels[None], input_ids[None], self.config, of_sample)
        return Sample(
            input_ids=input_ids,
            labels=labels,
            corpus=self.corpora[int(plan.corpora[0])],
            shard=self._rows.catalog.prefixes[int(plan.shards[0])],
            draw=int(plan.draws[0] + self._draws_before_chapter[plan.corpora[0]]),
            epoch=int(plan.epochs[0]),
            window=int(plan.windows[0]),
        )

    def plan(self, slots: IntArray) -> Plan:
        """Resolve slots to places on disk, without reading any file. Shape of ``slots``: ``(n,)``.

        Raises:
            ConfigError: A slot is before the last chapter, or not below 10^15.
        """
        if len(slots):
            self._check_slots(int(slots.min()), int(slots.max()))
        found = self._order.slot_places(slots)
        rows, places = found.rows, found.places
        firsts = places.starts.copy()
        for i in np.flatnonzero(places.of_unread).tolist():
            firsts[i] = self._order.streams.unread[int(rows[i])].stretches(int(firsts[i]), 1)[0][0]
        positions = self._rows.row_starts[rows] + firsts
        pieces = self._rows.pieces(positions)
        at_bytes = self._rows.contiguous_bytes(pieces, positions, self.config.seq_length + 1)
        return Plan(
            slots=slots,
            corpora=found.corpora,
            draws=found.draws,
            rows=rows,
            epochs=places.epochs,
            windows=places.windows,
            starts=places.starts,
            of_unread=places.of_unread,
            shards=self._rows.piece_shards[pieces],
            at_bytes=np.where(places.of_unread, -1, at_bytes),
            sample_ids=found.sample_ids,
        )

    def sample_ids(self, slots: IntArray) -> NDArray[np.uint64]:
        """What ``plan`` has as ``sample_ids``, without the places on disk."""
        return self._order.slot_places(slots).sample_ids

    def read(self, plan: Plan, start: int, stop: int) -> NDArray[np.integer]:
        """Tokens of samples ``start`` to ``stop`` of a plan. Shape ``(stop - start, L + 1)``.

        Raises:
            ShardError: A shard is missing, damaged, or holds a token outside the vocabulary. A
                note on it names the slot, corpus, shard and offset.
        """
        tokens = np.empty((stop - start, self.config.seq_length + 1), self.token_dtype)
        shards, at_bytes = plan.shards[start:stop].tolist(), plan.at_bytes[start:stop].tolist()
        i = 0
        try:
            for i, (shard, at) in enumerate(zip(shards, at_bytes, strict=True)):
                if at >= 0:
                    self._rows.read_contiguous(shard, at, tokens[i])
                else:
                    self._read_stretches(plan, start + i, tokens[i])
        except (BlendTitanError, OSError) as error:
            error.add_note(self._whereabouts(plan, start + i))
            raise
        self._check_vocabulary(plan, start, tokens)
        return tokens

    def _read_stretches(self, plan: Plan, at: int, out: NDArray[np.integer]) -> None:
        filled = 0
        for offset, count in self._stretches(plan, at):
            self._rows.read(int(plan.rows[at]), offset, out[filled : filled + count])
            filled += count

    def _stretches(self, plan: Plan, at: int) -> list[tuple[int, int]]:
        """Where the tokens of a sample lie in its row: ``(offset, tokens)`` each."""
        row, start = int(plan.rows[at]), int(plan.starts[at])
        return self._order.stretches(row, start, of_unread=bool(plan.of_unread[at]))

    def _check_slots(self, first: int, last: int) -> None:
        if 0 <= first < self.first_slot:
            raise ConfigError(
                f"slot {first:,} was read with other data, weights or another sequence length, "
                f"before the run was changed at slot {self.first_slot:,}; expected a slot from "
                f"there on"
            )
        if not 0 <= first <= last < MAX_SLOT:
            raise ConfigError(f"slots {first} to {last}, expected 0 to 10^15 - 1")

    def _check_vocabulary(self, plan: Plan, start: int, tokens: NDArray[np.integer]) -> None:
        limit = self.config.vocab_size
        if limit is None or all_below(tokens, limit):
            return
        sample, offset = np.argwhere((tokens < 0) | (tokens >= limit))[0]
        at = start + int(sample)
        in_row = [o + i for o, count in self._stretches(plan, at) for i in range(count)]
        shard, document_id = self._rows.document_of(int(plan.rows[at]), in_row[offset])
        error = VocabularyError(
            f"{self._rows.catalog.prefixes[shard]}: document {document_id} holds the token id "
            f"{tokens[sample, offset]}, expected ids from 0 to {limit - 1}. The shard was made "
            f"with another tokenizer, or the model's vocabulary is too small."
        )
        error.add_note(self._whereabouts(plan, at))
        raise error

    def _whereabouts(self, plan: Plan, at: int) -> str:
        first = self._stretches(plan, at)[0][0]
        shard, offset = self._rows.offset_in_shard(int(plan.rows[at]), first)
        return (
            f"while reading slot {plan.slots[at]} of {self.split}: "
            f"corpus {self.corpora[int(plan.corpora[at])]!r}, "
            f"shard {self._rows.catalog.prefixes[shard]}, from token {offset:,} of its "
            f"{self.split} part on (window {plan.windows[at]} of epoch {plan.epochs[at]})"
        )

    def checksums(self) -> dict[str, str]:
        """Checksums of each corpus's shards that are known; no fact that the order depends on."""
        return checksums_held(self._rows.catalog)

    def changed_checksums(self, saved: Mapping[str, str]) -> list[str]:
        """For each shard with another checksum than the saved one, a line about it."""
        return changed_checksums(self._rows.catalog, saved)

    def fixed_facts(self) -> dict[str, Any]:
        """What the order and the tokens depend on and never changes in a run. JSON."""
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

    def chapter_facts(self) -> dict[str, Any]:
        """What the order depends on and only another chapter may change. JSON."""
        return {
            "seq_length": self.config.seq_length,
            "segments": saved_segments(self.segments),
            "corpora": self._held or corpora_held(self._rows.catalog),
        }


def mask_labels(
    labels: IntArray,
    input_ids: NDArray[np.integer],
    config: BlendConfig,
    roles: NDArray[np.uint8] | None = None,
) -> None:
    """With ``eod_mask_loss``, mask in place the labels that are the first token of a document.

    Args:
        labels: Shape ``(B, L)``.
        input_ids: The token before each of them. Shape ``(B, L)``.
        config: Settings of the blend.
        roles: Of each row; see ``starts_document``.
    """
    if config.eod_mask_loss:
        assert config.eod_token_id is not None
        labels[starts_document(input_ids, labels, config.eod_token_id, roles)] = IGNORE_INDEX


def all_below(tokens: NDArray[np.integer], limit: int) -> bool:
    """Whether all tokens are from 0 to ``limit - 1``. Reads them once at most where it can."""
    info = np.iinfo(tokens.dtype)
    return bool((info.max < limit or tokens.max() < limit) and (info.min == 0 or tokens.min() >= 0))

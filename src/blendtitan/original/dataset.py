"""The samples of slots, in the order of the original BlendCorpus."""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import SPLITS, BlendConfig, split_fractions
from blendtitan.dataset.blended import all_below
from blendtitan.dataset.documents import corpus_eod_roles, mask_labels
from blendtitan.dataset.rows import Rows
from blendtitan.dataset.sample import Sample
from blendtitan.dataset.stretches import document_at, shard_index
from blendtitan.errors import BlendTitanError, ConfigError, CorruptShardError, VocabularyError
from blendtitan.history.record import corpora_held
from blendtitan.order.blend import Segment
from blendtitan.order.epoch import mix64, stream_keys
from blendtitan.original.build import original_indices, samples_of_splits
from blendtitan.original.index import CorpusEntry, IndexFile, OrderIndex
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.index_arrays import sequence_span
from blendtitan.storage.reader import OpenFiles

IntArray = NDArray[np.int64]

NO_SAMPLE = -1
"""Stands for the number of a sample if the slot is beyond the horizon."""


@dataclass(frozen=True, slots=True)
class OriginalPlan:
    """The stored places of the samples of some slots. Arrays have the shape ``(n,)``."""

    slots: IntArray
    corpora: IntArray
    records: NDArray[np.void]
    """Rows of the index; the window is ``NO_SAMPLE`` if a slot is beyond the horizon."""
    sample_ids: NDArray[np.uint64]
    """Identifies each sample."""


class OriginalDataset:
    """One split of a blend: as many samples as the original made, in its order.

    Slots from the last one on can be planned, since readers plan ahead, but not read. Reading is
    safe from several threads at once.
    """

    def __init__(
        self,
        config: BlendConfig,
        split: str,
        index: OrderIndex,
        rows: Rows,
        *,
        corpus: int | None = None,
    ) -> None:
        self.config = config
        self.split = split
        self._index = index
        self._rows = rows
        self._corpus = corpus
        names, weights = self.corpora, dict.fromkeys(rows.catalog.corpora, 0.0)
        for name, weight in zip(rows.catalog.corpora, rows.catalog.weights.tolist(), strict=True):
            weights[name] += weight
        self.segments = (Segment(0, {name: weights[name] for name in names}),)
        self.first_slot = 0
        self.eod_roles = corpus_eod_roles(rows.catalog, self.corpora)
        """The role of EOD in the documents of each corpus."""
        self._keys = np.array(
            [
                stream_keys(config.seed, split, name, [shard])[0]
                for shard, name in enumerate(rows.catalog.corpora)
            ],
            np.uint64,
        )

    @property
    def catalog(self) -> Catalog:
        """All shards of the blend."""
        return self._rows.catalog

    @property
    def segments_read(self) -> Sequence[Segment]:
        """One stretch with constant shares."""
        return self.segments

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora, sorted. A corpus's number is its place here."""
        return tuple(entry.name for entry in self._entries)

    @property
    def _entries(self) -> tuple[CorpusEntry, ...]:
        entries = self._index.corpora
        return entries if self._corpus is None else (entries[self._corpus],)

    @property
    def num_windows(self) -> int:
        """Number of samples: the horizon of the order."""
        if self._corpus is None:
            return self._index.num_slots
        return self._index.corpora[self._corpus].num_samples

    @property
    def corpus_tokens(self) -> IntArray:
        """Tokens that each corpus has in this split. Shape ``(num_corpora,)``."""
        shards_of = self._rows.catalog.corpora
        number = {name: i for i, name in enumerate(self.corpora)}
        tokens = np.zeros(len(number), np.int64)
        for name, num_tokens in zip(shards_of, self._index.shard_tokens.tolist(), strict=True):
            if name in number:
                tokens[number[name]] += num_tokens
        return tokens

    @property
    def token_dtype(self) -> np.dtype[Any]:
        """Type of the tokens that ``read`` returns."""
        return self._rows.dtype

    def samples_before(self, slot: int) -> int:
        """Number of slots before a slot: this order skips none."""
        return slot

    def draws_before(self, slot: int) -> IntArray:
        """Number of samples of each corpus before a slot. Shape ``(num_corpora,)``.

        Raises:
            ConfigError: The order has fewer samples.
        """
        if not 0 <= slot <= self.num_windows:
            raise self._beyond(f"{slot:,} samples are requested")
        if self._corpus is None:
            return self._index.draws_before(slot)
        return np.array([slot])

    def tokens_before(self, slot: int) -> IntArray:
        """Tokens of each corpus in the first ``slot`` samples. Shape ``(num_corpora,)``."""
        return self.draws_before(slot) * self.config.seq_length

    def only(self, corpus: str) -> "OriginalDataset":
        """The samples of one corpus alone: its slot ``d`` is draw ``d`` of the corpus here."""
        number = self.corpora.index(corpus)
        return OriginalDataset(self.config, self.split, self._index, self._rows, corpus=number)

    def once(self) -> "OriginalDataset":
        """Itself, because the number and order of samples are fixed."""
        return self

    def __getitem__(self, slot: int) -> Sample:
        """The sample of a slot.

        Raises:
            ConfigError: There is no such slot.
        """
        plan = self.plan(np.array([operator.index(slot)], np.int64))
        tokens = self.read(plan, 0, 1)[0]
        input_ids, labels = tokens[:-1].astype(np.int64), tokens[1:].astype(np.int64)
        roles = None if self.eod_roles is None else self.eod_roles[plan.corpora]
        mask_labels(labels[None], input_ids[None], self.config, roles)
        record, corpus = plan.records[0], int(plan.corpora[0])
        shard, window = int(record["shard"]), int(record["window"])
        return Sample(
            input_ids=input_ids,
            labels=labels,
            corpus=self.corpora[corpus],
            shard=self._rows.catalog.prefixes[shard],
            draw=int(self.draws_before(slot)[corpus]),
            epoch=self.epoch(shard, window),
            window=window,
        )

    def epoch(self, shard: int, window: int) -> int:
        """The epoch of the shard in which a sample begins."""
        return window * self.config.seq_length // int(self._index.shard_tokens[shard])

    def plan(self, slots: IntArray) -> OriginalPlan:
        """Resolve slots, of shape ``(n,)``, to places on disk, without reading any tokens.

        Raises:
            ConfigError: A slot is below 0.
        """
        if len(slots) and slots.min() < 0:
            raise ConfigError(f"slot {slots.min()}, expected 0 or more")
        exists = slots < self.num_windows
        if self._corpus is None:
            places = self._index.rows("slots", slots[exists])
        else:
            places = self._index.record_starts[self._corpus] + slots[exists]
        corpora = np.zeros(len(slots), np.int64)
        if self._corpus is None:
            corpora[exists] = self._index.corpora_of(places)
        found = self._index.rows("records", places)
        records = np.zeros(len(slots), found.dtype)
        records["window"] = NO_SAMPLE
        records[exists] = found
        ids = self._keys[records["shard"]] + records["window"].astype(np.uint64)
        return OriginalPlan(slots, corpora, records, mix64(ids))

    def sample_ids(self, slots: IntArray) -> NDArray[np.uint64]:
        """The ``sample_ids`` of ``plan``."""
        return self.plan(slots).sample_ids

    def read(self, plan: OriginalPlan, start: int, stop: int) -> NDArray[np.integer]:
        """Tokens of samples ``start`` to ``stop`` of a plan. Shape ``(stop - start, L + 1)``.

        Raises:
            ConfigError: There is no such slot.
            ShardError: A shard is missing, damaged, or holds a token outside the vocabulary. A
                note on it names the slot, corpus, shard and offset.
        """
        tokens = np.empty((stop - start, self.config.seq_length + 1), self.token_dtype)
        at = start
        try:
            for at in range(start, stop):
                self._read_sample(plan, at, tokens[at - start])
        except (BlendTitanError, OSError) as error:
            error.add_note(self._whereabouts(plan, at))
            raise
        return tokens

    def _read_sample(self, plan: OriginalPlan, at: int, out: NDArray[np.integer]) -> None:
        record = plan.records[at]
        stretches = self.stretches(plan, at)
        shard = int(record["shard"])
        token_bytes = self._rows.catalog.dtype(shard).itemsize
        filled = 0
        for first_token, count in stretches:
            part = out[filled : filled + count]
            self._rows.read_contiguous(shard, first_token * token_bytes, part)
            filled += count
        if filled < len(out):
            raise CorruptShardError(
                f"{self._rows.catalog.prefixes[shard]}: found {filled:,} tokens for a sample, "
                f"expected {len(out):,} from the index of the order. The .idx was replaced while "
                f"the run was reading: start it again."
            )
        limit = self.config.vocab_size
        if limit is not None and not all_below(out, limit):
            raise self._outside_vocabulary(record, out, limit)

    def stretches(self, plan: OriginalPlan, at: int) -> Iterator[tuple[int, int]]:
        """``(first token in the shard, tokens)`` of each piece of a sample.

        Raises:
            ConfigError: There is no such slot.
            ShardError: The shard's ``.idx`` is missing or damaged.
        """
        if plan.records[at]["window"] == NO_SAMPLE:
            raise self._beyond(f"slot {plan.slots[at]:,} is requested")
        return self._stretches(plan.records[at])

    def _stretches(self, record: np.void) -> Iterator[tuple[int, int]]:
        """``(first token in the shard, tokens)`` of each piece of a sample."""
        index = shard_index(self._rows, int(record["shard"]))
        first, offset = int(record["first_read"]), int(record["offset"])
        left = self.config.seq_length + 1
        for sequence in self._index.stretch(
            "reads", first, first + int(record["num_reads"])
        ).tolist():
            begin, end = sequence_span(index, sequence)
            begin += offset
            count = min(left, end - begin)
            if count > 0:
                yield begin, count
            left -= count
            offset = 0

    def _outside_vocabulary(
        self, record: np.void, tokens: NDArray[np.integer], limit: int
    ) -> VocabularyError:
        place = int(np.flatnonzero((tokens < 0) | (tokens >= limit))[0])
        offsets = [
            first_token + i for first_token, count in self._stretches(record) for i in range(count)
        ]
        shard = int(record["shard"])
        document_id = document_at(shard_index(self._rows, shard), offsets[place])
        return VocabularyError(
            f"{self._rows.catalog.prefixes[shard]}: document {document_id} holds the token id "
            f"{tokens[place]}, expected ids from 0 to {limit - 1}. The shard was made with another "
            f"tokenizer, or the model's vocabulary is too small."
        )

    def _whereabouts(self, plan: OriginalPlan, at: int) -> str:
        record, slot = plan.records[at], plan.slots[at]
        if record["window"] == NO_SAMPLE:
            return f"while reading slot {slot} of {self.split}"
        first = int(record["first_read"])
        sequence = int(self._index.stretch("reads", first, first + 1)[0])
        return (
            f"while reading slot {slot} of {self.split}: "
            f"corpus {self.corpora[int(plan.corpora[at])]!r}, "
            f"shard {self._rows.catalog.prefixes[int(record['shard'])]}, from token "
            f"{record['offset']:,} of sequence {sequence:,} on (sample {record['window']} of "
            f"the shard)"
        )

    @property
    def _horizon(self) -> tuple[str, int]:
        """The setting that the number of samples follows from, and its value."""
        name = "train_samples" if self.split == "train" else "eval_samples"
        return name, samples_of_splits(self.config)[SPLITS.index(self.split)]

    def _beyond(self, found: str) -> ConfigError:
        name, asked = self._horizon
        return ConfigError(
            f'{found}, but order = "blendcorpus" with {name} = {asked:,} has '
            f"{self.num_windows:,} samples of {self.split}. Train for fewer steps, or start a new "
            f"run with a larger {name}, which changes the order."
        )

    def with_changes(self, changes: Sequence[Segment]) -> "OriginalDataset":
        """Itself, if there are no changes.

        Raises:
            ConfigError: There are changes.
        """
        if changes:
            raise ConfigError(
                'order = "blendcorpus" has one blend for the whole run: expected no segments. '
                'They need order = "blendtitan".'
            )
        return self

    def fixed_facts(self) -> dict[str, Any]:
        """Everything that the order and the tokens of samples depend on. JSON."""
        config = self.config
        return {
            "order": config.order,
            "seed": config.seed,
            "seq_length": config.seq_length,
            "split": self.split,
            "split_fractions": list(split_fractions(config.split)),
            "shuffle_sample_in_corpus": config.shuffle_sample_in_corpus,
            "blend_sample_in_corpus": config.blend_sample_in_corpus,
            **dict([self._horizon]),
            "weights": dict(self.segments[0].weights),
            "corpora": corpora_held(self._rows.catalog),
            "index": self._index.digest,
        }


def build_splits(
    config: BlendConfig,
    catalog: Catalog,
    files: OpenFiles,
    indices: Sequence[IndexFile | None] | None,
) -> dict[str, OriginalDataset | None]:
    """The splits of a blend; None for an unused split. Builds missing indices."""
    indices = original_indices(config, catalog) if indices is None else indices
    # The original inserts no EOD.
    catalog = replace(catalog, lacks_eod=np.zeros_like(catalog.lacks_eod))
    shards = [[shard] for shard in range(len(catalog.prefixes))]
    found: dict[str, OriginalDataset | None] = dict.fromkeys(SPLITS)
    for number, (split, index) in enumerate(zip(SPLITS, indices, strict=True)):
        if index is not None:
            rows = Rows.build(catalog, files, shards, split=number, eod_id=None)
            found[split] = OriginalDataset(config, split, OrderIndex.open(index), rows)
    return found

"""From slots of the global order to samples."""

import hashlib
import json
import operator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import SPLITS, BlendConfig
from blendtitan.dataset.plan import NO_CORPUS, Plan, Sample, WindowColumns
from blendtitan.dataset.rows import Rows
from blendtitan.errors import BlendTitanError, ConfigError, VocabularyError
from blendtitan.order.blend import BlendTrees
from blendtitan.order.permutation import epoch_keys, epoch_shifts, mix64, permute
from blendtitan.order.segments import BlendOrder, Segment
from blendtitan.order.windows import window_starts
from blendtitan.storage.catalog import Catalog

IntArray = NDArray[np.int64]

IGNORE_INDEX = -100
"""Label that PyTorch's cross entropy leaves out."""

# Beyond it a double product no longer tells neighbouring slots apart surely enough.
MAX_SLOT = 10**15


class BlendedDataset:
    """One split of a blend: an endless sequence of samples, in the global order.

    Reading is safe from several threads at once.
    """

    def __init__(
        self,
        config: BlendConfig,
        split: str,
        segments: Sequence[Segment],
        rows: Rows,
        windows: WindowColumns,
        shard_trees: BlendTrees,
    ) -> None:
        self.config = config
        self.split = split
        self.segments = tuple(segments)
        self._order = BlendOrder.build(segments)
        self._rows = rows
        self._windows = windows
        self._shard_trees = shard_trees

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora, sorted. A corpus's number is its place here."""
        return self._order.corpora

    @property
    def num_windows(self) -> int:
        """Windows of one epoch of all corpora together."""
        return int(self._windows.num_windows[self._own_rows].sum())

    @property
    def corpus_tokens(self) -> IntArray:
        """Tokens that each corpus has in this split. Shape ``(num_corpora,)``."""
        tokens = np.zeros(len(self.corpora), np.int64)
        rows = self._own_rows
        np.add.at(tokens, self._windows.corpora[rows], self._rows.num_tokens[rows])
        return tokens

    @property
    def _own_rows(self) -> NDArray[np.bool_]:
        return self._windows.corpora != NO_CORPUS

    @property
    def token_dtype(self) -> np.dtype[Any]:
        """Type of the tokens that ``read`` returns."""
        return self._rows.dtype

    def draws_before(self, slot: int) -> IntArray:
        """How many of the first ``slot`` samples each corpus has. Shape ``(num_corpora,)``."""
        return self._order.draws_before(slot)

    def only(self, corpus: str) -> "BlendedDataset":
        """The samples of one corpus alone: slot ``d`` is what here is draw ``d`` of the corpus."""
        number = self.corpora.index(corpus)
        trees = replace(self._shard_trees, roots=self._shard_trees.roots[[number]])
        windows = replace(
            self._windows, corpora=np.where(self._windows.corpora == number, 0, NO_CORPUS)
        )
        segments = [Segment(0, {corpus: 1.0})]
        return BlendedDataset(self.config, self.split, segments, self._rows, windows, trees)

    def __getitem__(self, slot: int) -> Sample:
        """The sample of a slot, any slot from 0 on."""
        slot = operator.index(slot)
        _check_slots(slot, slot)
        plan = self.plan(np.array([slot], np.int64))
        tokens = self.read(plan, 0, 1)[0]
        input_ids, labels = tokens[:-1].astype(np.int64), tokens[1:].astype(np.int64)
        mask_labels(labels, input_ids, self.config)
        return Sample(
            input_ids=input_ids,
            labels=labels,
            corpus=self.corpora[int(plan.corpora[0])],
            shard=self._rows.catalog.prefixes[int(plan.shards[0])],
            draw=int(plan.draws[0]),
            epoch=int(plan.epochs[0]),
            window=int(plan.windows[0]),
        )

    def plan(self, slots: IntArray) -> Plan:
        """Resolve slots to places on disk, without reading any file. Shape of ``slots``: ``(n,)``.

        Raises:
            ConfigError: A slot is below 0 or not below 10^15.
        """
        if len(slots):
            _check_slots(int(slots.min()), int(slots.max()))
        corpora, draws = self._order.draws(slots)
        rows, row_draws = self._shard_trees.leaves(corpora, draws)
        epochs, index = np.divmod(row_draws, self._windows.num_windows[rows])
        keys = epoch_keys(self._windows.keys[rows], epochs)
        windows = index
        if self.config.shuffle_sample_in_corpus:
            windows = permute(index, self._windows.num_windows[rows], keys)
        seq_len = self.config.seq_length
        shifts = epoch_shifts(keys, epochs, self._windows.tokens_left_over[rows])
        starts = window_starts(windows, shifts, seq_len=seq_len)
        positions = self._rows.row_starts[rows] + starts
        pieces = self._rows.pieces(positions)
        return Plan(
            slots=slots,
            corpora=corpora,
            draws=draws,
            rows=rows,
            epochs=epochs,
            windows=windows,
            starts=starts,
            shards=self._rows.piece_shards[pieces],
            at_bytes=self._rows.contiguous_bytes(pieces, positions, seq_len + 1),
            sample_ids=mix64(keys + starts.astype(np.uint64)),
        )

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
                    self._rows.read(
                        int(plan.rows[start + i]), int(plan.starts[start + i]), tokens[i]
                    )
        except (BlendTitanError, OSError) as error:
            error.add_note(self._whereabouts(plan, start + i))
            raise
        self._check_vocabulary(plan, start, tokens)
        return tokens

    def _check_vocabulary(self, plan: Plan, start: int, tokens: NDArray[np.integer]) -> None:
        limit = self.config.vocab_size
        if limit is None or all_below(tokens, limit):
            return
        sample, offset = np.argwhere((tokens < 0) | (tokens >= limit))[0]
        at = start + int(sample)
        row, in_row = int(plan.rows[at]), int(plan.starts[at]) + int(offset)
        shard, document_id = self._rows.document_of(row, in_row)
        error = VocabularyError(
            f"{self._rows.catalog.prefixes[shard]}: document {document_id} holds the token id "
            f"{tokens[sample, offset]}, expected ids from 0 to {limit - 1}. The shard was made "
            f"with another tokenizer, or the model's vocabulary is too small."
        )
        error.add_note(self._whereabouts(plan, at))
        raise error

    def _whereabouts(self, plan: Plan, at: int) -> str:
        shard, offset = self._rows.offset_in_shard(int(plan.rows[at]), int(plan.starts[at]))
        return (
            f"while reading slot {plan.slots[at]} of {self.split}: "
            f"corpus {self.corpora[int(plan.corpora[at])]!r}, "
            f"shard {self._rows.catalog.prefixes[shard]}, from token {offset:,} of its "
            f"{self.split} part on (window {plan.windows[at]} of epoch {plan.epochs[at]})"
        )

    def corpora_held(self) -> dict[str, dict[str, Any]]:
        """What each corpus holds on disk: its shards, their weights, and tokens by split."""
        return corpora_held(self._rows.catalog)


def _check_slots(first: int, last: int) -> None:
    if not 0 <= first <= last < MAX_SLOT:
        raise ConfigError(f"slots {first} to {last}, expected 0 to 10^15 - 1")


def mask_labels(labels: IntArray, input_ids: NDArray[np.integer], config: BlendConfig) -> None:
    """With ``eod_mask_loss``, mask in place the labels that ask to predict past a document's end.

    Shapes of ``labels`` and ``input_ids`` are the same.
    """
    if config.eod_mask_loss:
        labels[input_ids == config.eod_token_id] = IGNORE_INDEX


def all_below(tokens: NDArray[np.integer], limit: int) -> bool:
    """Whether all tokens are from 0 to ``limit - 1``. Reads them once at most where it can."""
    info = np.iinfo(tokens.dtype)
    return bool((info.max < limit or tokens.max() < limit) and (info.min == 0 or tokens.min() >= 0))


def corpora_held(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """What each corpus holds on disk: its shards, their weights, and tokens by split."""
    shards_of: dict[str, list[int]] = {name: [] for name in sorted(set(catalog.corpora))}
    for shard, name in enumerate(catalog.corpora):
        shards_of[name].append(shard)
    tokens = np.diff(catalog.token_cuts)
    return {
        name: {
            "tokens": dict(zip(SPLITS, tokens[shards].sum(axis=0).tolist(), strict=True)),
            "shards": len(shards),
            "shards_digest": _shards_digest(catalog, shards),
        }
        for name, shards in shards_of.items()
    }


def _shards_digest(catalog: Catalog, shards: list[int]) -> str:
    """Digest of what is known of some shards. Their folders are left out: data may move."""
    columns = (
        *(catalog.weights, catalog.dtype_codes, catalog.num_sequences),
        *(catalog.document_cuts, catalog.token_cuts, catalog.lacks_eod),
    )
    names = [Path(catalog.prefixes[shard]).name for shard in shards]
    digest = hashlib.blake2b(json.dumps(names).encode(), digest_size=8)
    for column in columns:
        digest.update(column[shards].astype(column.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()

"""The ``.idx`` that a damaged shard should have, where its other entries and its tokens prove it.

Three kinds of damage are known, alone or together, each made by a program that many people use:

- Megatron-LM's ``--append-eod`` wrote an EOD to the ``.bin`` without counting it in the length of
  the document's last sequence (Megatron-LM #431). An empty text is a document of no sequence,
  and has no EOD.
- A merge lost the document index, so that it holds nothing but a 0.
- Pointers are wrong, as after an overflow, although the lengths describe the ``.bin`` exactly.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError, MixedEodError, ShardError
from blendtitan.shards.tokens import summarize_tokens
from blendtitan.storage.ends import DocumentEnds
from blendtitan.storage.index_arrays import IndexArrays, document_ends, last_sequences
from blendtitan.storage.index_format import IndexHeader
from blendtitan.storage.reader import OpenFile, ShardIndex
from blendtitan.storage.writer import encode_index_blocks
from blendtitan.visible import counted

_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Layout:
    """The arrays of an ``.idx``, with up to three corrections."""

    arrays: IndexArrays

    counts_eod: bool = False
    """Whether one is added to the last sequence of each document."""

    restores_documents: bool = False
    """Whether every sequence is a document, in place of a lost document index."""

    restores_pointers: bool = False
    """Whether pointers differ from those that the lengths give."""

    ends: DocumentEnds | None = None
    """How its documents end, by the proof. None: nothing is corrected, so nothing was proven."""

    @property
    def header(self) -> IndexHeader:
        """The header of the corrected ``.idx``."""
        header = self.arrays.header
        if not self.restores_documents:
            return header
        return IndexHeader(header.dtype, header.num_sequences, header.num_sequences)

    @property
    def is_right(self) -> bool:
        """Whether nothing is corrected."""
        return not (self.counts_eod or self.restores_documents or self.restores_pointers)

    def corrections(self) -> list[str]:
        """What is corrected, in words."""
        done = {
            "the EODs are counted": self.counts_eod,
            "the document index is restored": self.restores_documents,
            "the pointers are computed from the lengths": self.restores_pointers,
        }
        return [what for what, is_done in done.items() if is_done]

    def document_blocks(self) -> Iterator[NDArray[np.int64]]:
        """The corrected document index, in blocks."""
        if not self.restores_documents:
            yield from self.arrays.document_blocks()
            return
        num_entries = self.arrays.header.num_sequences + 1
        for first in range(0, num_entries, _BLOCK):
            yield np.arange(first, min(first + _BLOCK, num_entries))

    def lens_blocks(self) -> Iterator[NDArray[np.int32]]:
        """The corrected lengths, in blocks."""
        blocks = self.arrays.lens_blocks()
        return self._counted(blocks) if self.counts_eod else blocks

    def document_ends(self) -> Iterator[NDArray[np.int64]]:
        """Where documents end, in tokens, in blocks."""
        return document_ends(self.lens_blocks(), self.document_blocks())

    def encoded(self) -> Iterator[bytes]:
        """The bytes of the corrected ``.idx``, in blocks."""
        return encode_index_blocks(self.header, self.lens_blocks, self.document_blocks())

    def _counted(self, blocks: Iterable[NDArray[np.int32]]) -> Iterator[NDArray[np.int32]]:
        found, pending = last_sequences(self.document_blocks()), np.zeros(0, np.int64)
        first = 0
        for lens in blocks:
            stop = first + len(lens)
            while not len(pending) or pending[-1] < stop:
                more = next(found, None)
                if more is None:
                    break
                pending = np.append(pending, more)
            here, pending = np.split(pending, [np.searchsorted(pending, stop)])
            counted = lens.copy()
            counted[here - first] += 1
            if np.any(counted < lens):
                raise ShardError(
                    f"{self.arrays.file.path}: a sequence has {lens.max():,} tokens, and its "
                    f"length cannot hold one more. Tokenise the shard again, in shorter documents."
                )
            yield counted
            first = stop


def right_layout(prefix: Path, *, eod_id: int) -> Layout:
    """The layout that a shard has, or should have.

    Raises:
        ShardError: No known damage explains the shard, or its tokens do not prove the correction.
    """
    arrays = IndexArrays.open(prefix)
    bin_file = OpenFile.open(f"{prefix}.bin")
    layout = _explained(prefix, arrays, bin_file.num_bytes)
    if layout.is_right:
        return layout
    return replace(layout, ends=_prove(prefix, layout, bin_file, eod_id))


def _explained(prefix: Path, arrays: IndexArrays, bin_bytes: int) -> Layout:
    header = arrays.header
    is_lost = header.num_documents == 0 < header.num_sequences
    if not is_lost:
        arrays.check_documents()
    num_tokens, pointers_fit = arrays.sum_lens()
    missing, remainder = divmod(
        bin_bytes - num_tokens * header.dtype.itemsize, header.dtype.itemsize
    )
    layout = Layout(arrays, restores_documents=is_lost, restores_pointers=not pointers_fit)
    if missing == remainder == 0 and bin_bytes > 0:
        return layout
    num_ends = sum(len(block) for block in last_sequences(layout.document_blocks()))
    if remainder == 0 and missing == num_ends > 0:
        return Layout(
            arrays, counts_eod=True, restores_documents=is_lost, restores_pointers=not pointers_fit
        )
    # Opening the shard says best what is wrong.
    ShardIndex.open(prefix)
    raise CorruptShardError(
        f"{arrays.file.path}: its lengths sum to {num_tokens:,} tokens, but the .bin has "
        f"{bin_bytes:,} bytes ({header.dtype.itemsize} for each token), and no known fault "
        f"explains the difference. Copy both files again, or tokenise the shard again."
    )


def _prove(prefix: Path, layout: Layout, bin_file: OpenFile, eod_id: int) -> DocumentEnds | None:
    """Check by all tokens that every document ends in EOD once the ``.idx`` is corrected.

    Wrong pointers beside lengths that describe the ``.bin`` need less: that EOD ends all
    documents or none, because a shard may be without EOD.
    """
    found = summarize_tokens(
        bin_file, layout.header.dtype, layout.document_ends(), eod_id=eod_id, vocab_size=None
    )
    if found.first_outside is not None:
        token_id, document_id = found.first_outside
        raise CorruptShardError(
            f"not repairable: {prefix}.bin: document {document_id} holds the token id {token_id}, "
            f"expected ids from 0. The shard is damaged: tokenise it again."
        )
    needs_all = layout.counts_eod or layout.restores_documents
    if found.is_mixed or (needs_all and found.num_eod < found.num_filled):
        tried = " and ".join(what for name, what in _TRIED.items() if getattr(layout, name))
        raise MixedEodError(
            f"{prefix}: with {tried}, {found.num_eod:,} of {counted(found.num_filled, 'document')} "
            f"end in EOD ({eod_id}), expected all{'' if needs_all else ' or none'}; the first "
            f"that does not is document {found.first_without_eod}. Give the EOD of its "
            f"tokenizer, or tokenise it again."
        )
    return found.document_ends


_TRIED = {
    "counts_eod": "one more token each",
    "restores_documents": "every sequence as a document",
    "restores_pointers": "pointers computed from the lengths",
}

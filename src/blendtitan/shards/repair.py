"""Repair of ``.idx`` files with known damage; the tokens stay unchanged.

Three kinds of damage are known, alone or together, each made by a program that many people use:

- Megatron-LM's ``--append-eod`` wrote an EOD to the ``.bin`` without counting it in the length of
  the document's last sequence (Megatron-LM #431). An empty text is a document of no sequence,
  and has no EOD.
- A merge lost the document index, so that it holds only a 0.
- Pointers are wrong, as after an overflow, although the lengths describe the ``.bin`` exactly.

A correction is made only if the tokens prove it.
"""

import filecmp
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import check_at_least
from blendtitan.document_sources import recorded_fields
from blendtitan.errors import CorruptShardError, MixedEodError, ShardError
from blendtitan.shards.tokens import summarize_tokens
from blendtitan.shards.verify import Expected, verify_shard
from blendtitan.storage.atomic_files import flush_and_close, partial_path, sync_folder, writing
from blendtitan.storage.index_arrays import (
    IndexArrays,
    document_ends,
    encode_index,
    last_sequences,
    sequence_pointers,
)
from blendtitan.storage.list_forms import NamedShard, named_shards
from blendtitan.storage.reader import FileSignature, OpenFile, ShardIndex, file_signature
from blendtitan.storage.record_writer import write_ends
from blendtitan.storage.records import ENDS_SUFFIX, DocumentEnds, FolderCatalogs
from blendtitan.storage.writer import remove_partials
from blendtitan.visible import counted

KEPT_SUFFIX = ".idx.before-repair"


@dataclass(frozen=True, slots=True)
class RepairedShard:
    """The outcome for one shard. Without corrections it has an error, or nothing was wrong."""

    prefix: Path
    corrections: list[str] = field(default_factory=list)
    error: str | None = None


def repair(inputs: Sequence[Path], *, eod_id: int) -> list[RepairedShard]:
    """Repair all shards that need it, and continue after a shard that cannot be repaired.

    Raises:
        ConfigError: An input cannot be used, or ``eod_id`` is negative.
    """
    check_at_least("eod_id", eod_id, 0)

    def outcome(prefix: Path) -> RepairedShard:
        try:
            return RepairedShard(prefix, repair_shard(prefix, eod_id=eod_id))
        except ShardError as error:
            return RepairedShard(prefix, error=str(error))

    return [outcome(prefix) for prefix, _ in named_shards(inputs)]


def check_repaired(shards: Sequence[RepairedShard]) -> None:
    """Check that every shard was repaired or sound; raises ShardError with all reasons."""
    errors = [shard.error for shard in shards if shard.error is not None]
    if errors:
        kept = "was not changed" if len(shards) == 1 else "were not changed"
        raise ShardError(*errors, f"{len(errors):,} of {counted(len(shards), 'shard')} {kept}")


def repair_shard(prefix: Path, *, eod_id: int) -> list[str]:
    """Correct the ``.idx`` of a shard, and keep the old one as ``.idx.before-repair``.

    The new ``.idx`` replaces the old one in one step, so a reader sees one or the other.

    Returns:
        The corrections in words; empty if every entry is right.

    Raises:
        ShardError: Something else is wrong with the shard, or its tokens do not prove the
            correction. Nothing was changed.
    """
    if Path(f"{prefix}{KEPT_SUFFIX}").exists():
        remove_partials(prefix)  # of an earlier repair that was killed
    before = file_signature(str(prefix))
    layout = _explained(prefix)
    if not layout.corrections:
        _check_good(prefix, eod_id)
        return []
    recorded_fields(prefix, len(layout.documents) - 1)
    ends = _proved_ends(prefix, layout, eod_id)
    idx = _replace_index(prefix, layout)
    # A record of the old .idx is wrong by now.
    if ends is None or not write_ends(prefix, ends, _with_idx(before, idx)):
        Path(f"{prefix}{ENDS_SUFFIX}").unlink(missing_ok=True)
    ShardIndex.open(prefix)
    return list(layout.corrections)


@dataclass(frozen=True, slots=True)
class Layout:
    """The arrays of a corrected ``.idx``."""

    arrays: IndexArrays
    lens: NDArray[np.int32]
    documents: NDArray[np.int64]

    corrections: dict[str, str]
    """Each correction, and its description in an error."""

    needs_eod: bool
    """Whether every document must end in EOD to prove the corrections."""

    header_bytes: int
    """Bytes of the ``.bin`` before its first token."""


def _explained(prefix: Path) -> Layout:
    """The layout that a shard should have; a ShardError if no known damage explains it."""
    arrays = IndexArrays.open(prefix)
    bin_bytes, token_bytes = OpenFile.open(f"{prefix}.bin").num_bytes, arrays.dtype.itemsize
    lens, documents = arrays.lens, arrays.documents
    is_lost = len(documents) == 1 and len(lens) > 0
    if is_lost:
        documents = np.arange(len(lens) + 1)
    else:
        arrays.check_documents()
    num_tokens, last = arrays.sum_lens(), last_sequences(documents)
    header_bytes = _header_bytes(arrays, num_tokens * token_bytes, bin_bytes)
    missing, remainder = divmod(bin_bytes - header_bytes - num_tokens * token_bytes, token_bytes)
    lacks_eods = remainder == 0 and missing == len(last) > 0
    if not lacks_eods and not (missing == remainder == 0 and bin_bytes > 0):
        # Opening the shard gives the best error.
        ShardIndex.open(prefix)
        raise CorruptShardError(
            f"{arrays.path}: its lengths sum to {num_tokens:,} tokens, but the .bin has "
            f"{bin_bytes:,} bytes ({token_bytes} for each token), and no known fault explains the "
            f"difference. Copy both files again, or tokenise the shard again."
        )
    corrections: dict[str, str] = {}
    if lacks_eods:
        lens = lens.copy()
        if (lens[last] == np.iinfo(np.int32).max).any():
            raise ShardError(
                f"{arrays.path}: a sequence has {lens.max():,} tokens, and the format cannot store "
                f"a greater length. Tokenise the shard again, in shorter documents."
            )
        lens[last] += 1
        corrections["the EODs are counted"] = "one more token each"
    if is_lost:
        corrections["the document index is restored"] = "every sequence as a document"
    if (arrays.pointers != header_bytes + sequence_pointers(arrays.lens, token_bytes)).any():
        corrections["the pointers are computed from the lengths"] = (
            "pointers computed from the lengths"
        )
    return Layout(arrays, lens, documents, corrections, lacks_eods or is_lost, header_bytes)


def _with_idx(before: FileSignature | None, idx: os.stat_result) -> FileSignature | None:
    """The signature of a shard with a new ``.idx``."""
    return before and before._replace(idx_bytes=idx.st_size, idx_changed_ns=idx.st_mtime_ns)


def _header_bytes(arrays: IndexArrays, num_bytes: int, bin_bytes: int) -> int:
    """The first pointer if the tokens, as many as the lengths say, fill the ``.bin`` from there."""
    return arrays.header_bytes if arrays.header_bytes + num_bytes == bin_bytes else 0


def _proved_ends(prefix: Path, layout: Layout, eod_id: int) -> DocumentEnds | None:
    """Check all tokens: every document ends in EOD once the ``.idx`` is corrected.

    Wrong pointers beside lengths that describe the ``.bin`` need less: that all documents end in
    EOD or none, because a shard may be without EOD.
    """
    start = layout.header_bytes // layout.arrays.dtype.itemsize
    found = summarize_tokens(
        OpenFile.open(f"{prefix}.bin"),
        layout.arrays.dtype,
        start + document_ends(layout.lens, layout.documents),
        start=start,
        eod_id=eod_id,
        vocab_size=None,
    )
    if found.first_outside is not None:
        token_id, document_id = found.first_outside
        raise CorruptShardError(
            f"not repairable: {prefix}.bin: document {document_id} holds the token id {token_id}, "
            f"expected ids from 0. The shard is damaged: tokenise it again."
        )
    if found.is_mixed or (layout.needs_eod and found.num_eod < found.num_filled):
        raise MixedEodError(
            f"{prefix}: with {' and '.join(layout.corrections.values())}, {found.num_eod:,} of "
            f"{counted(found.num_filled, 'document')} end in EOD ({eod_id}), expected all"
            f"{'' if layout.needs_eod else ' or none'}; the first that does not is document "
            f"{found.first_without_eod}. Give the EOD of its tokenizer, or tokenise it again."
        )
    return found.document_ends


def _check_good(prefix: Path, eod_id: int) -> None:
    """Check a shard whose ``.idx`` needs no correction as ``blendtitan verify`` does."""
    shard = NamedShard(prefix, prefix.name)
    found = verify_shard(shard, Expected(eod_id=eod_id), FolderCatalogs())
    if found.problems:
        raise ShardError(*(f"not repairable: {problem}" for problem in found.problems))


def _replace_index(prefix: Path, layout: Layout) -> os.stat_result:
    idx_path = Path(f"{prefix}.idx")
    remove_partials(prefix)
    partial = partial_path(idx_path)
    try:
        with writing(idx_path), partial.open("wb") as file:
            file.writelines(
                encode_index(
                    layout.lens,
                    layout.documents,
                    dtype=layout.arrays.dtype,
                    header_bytes=layout.header_bytes,
                )
            )
            flush_and_close(file)
        _keep(idx_path)
        found = partial.stat()
        partial.replace(idx_path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(idx_path.parent)
    return found


def _keep(idx_path: Path) -> None:
    """Give the old ``.idx`` a second name, unless it has it from an interrupted repair."""
    kept = idx_path.with_name(f"{idx_path.stem}{KEPT_SUFFIX}")
    try:
        os.link(idx_path, kept)
    except FileExistsError:
        if not filecmp.cmp(idx_path, kept, shallow=False):
            raise ShardError(
                f"{kept}: exists, and differs from the current {idx_path.name}. Move it away first."
            ) from None
    except OSError as error:
        raise ShardError(
            f"{kept}: cannot be linked to {idx_path.name} ({error.strerror}). Copy {idx_path.name} "
            f"to this name, then repair again."
        ) from error
    # The old file has its second name on disk before it loses the first.
    sync_folder(idx_path.parent)

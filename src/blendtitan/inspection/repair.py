"""Mending shards whose EODs were appended without being counted in the ``.idx``.

Some tools write each document's tokens and EOD to the ``.bin``, but the length without EOD to the
``.idx``: document ``k`` then seems to start ``k`` tokens early. One is added to every length, if
every document then ends in EOD; the tokens are right as they are.
"""

import filecmp
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import check_at_least
from blendtitan.errors import MixedEodError, ShardError, UncountedEodError
from blendtitan.inspection.tokens import summarize_tokens
from blendtitan.storage.disk import written
from blendtitan.storage.file_list import named_shards
from blendtitan.storage.index_arrays import IndexArrays
from blendtitan.storage.index_format import encode_index_blocks
from blendtitan.storage.open_files import OpenFile
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.writer import (
    flush_and_close,
    partial_path,
    remove_file_partials,
    sync_folder,
)


@dataclass(frozen=True, slots=True)
class RepairedShard:
    """What became of a shard. One that was not repaired has nothing wrong, or an error."""

    prefix: Path
    repaired: bool = False
    error: str | None = None


def repair(inputs: Sequence[Path], *, eod_id: int) -> list[RepairedShard]:
    """Repair all shards that need it; one that cannot be repaired does not stop the others.

    Raises:
        ConfigError: An input cannot be used, or ``eod_id`` is no token.
    """
    check_at_least("eod_id", eod_id, 0)
    return [_repaired(prefix, eod_id) for prefix, _ in named_shards(inputs)]


def check_repaired(shards: Sequence[RepairedShard]) -> None:
    """Check that no shard was refused.

    Raises:
        ShardError: Some were. The message says why.
    """
    errors = [shard.error for shard in shards if shard.error is not None]
    if errors:
        refused = f"{len(errors):,} of {len(shards):,} shards are as they were"
        raise ShardError(*errors, refused)


def repair_shard(prefix: Path, *, eod_id: int) -> bool:
    """Count the EODs of a shard in its ``.idx``, and keep the old one beside it.

    The new ``.idx`` takes the place of the old one in one step, so whoever reads the shard has
    the one or the other, whatever happens. The old one stays as ``.idx.before-repair``.

    Returns:
        False where nothing was wrong, and nothing was done.

    Raises:
        ShardError: Something else is wrong with the shard, or it is not proved that one more
            token each makes every document end in EOD. Nothing was changed.
    """
    try:
        ShardIndex.open(prefix)
    except UncountedEodError:
        arrays = IndexArrays.open(prefix)
    else:
        return False
    _check_index(arrays)
    _check_every_document_ends_in_eod(prefix, arrays, eod_id)
    _replace_index(prefix, arrays)
    ShardIndex.open(prefix)
    return True


def _repaired(prefix: Path, eod_id: int) -> RepairedShard:
    try:
        return RepairedShard(prefix, repaired=repair_shard(prefix, eod_id=eod_id))
    except ShardError as error:
        return RepairedShard(prefix, error=str(error))


def _check_index(arrays: IndexArrays) -> None:
    """Check that the old ``.idx`` is sound but for its lengths, with one sequence a document."""
    arrays.check_lens()
    first = 0
    for documents in arrays.document_blocks():
        if not np.array_equal(documents, np.arange(first, first + len(documents))):
            raise ShardError(
                f"{arrays.file.path}: a document has several sequences or none, expected one each. "
                f"It is not known which sequence lacks EOD: tokenise the shard again."
            )
        first += len(documents)


def _check_every_document_ends_in_eod(prefix: Path, arrays: IndexArrays, eod_id: int) -> None:
    found = summarize_tokens(
        OpenFile.open(f"{prefix}.bin"),
        arrays.header.dtype,
        _document_ends(arrays),
        eod_id=eod_id,
        vocab_size=None,
    )
    if found.num_eod != found.num_documents:
        raise MixedEodError(
            f"{prefix}: with one more token each, {found.num_eod:,} of {found.num_documents:,} "
            f"documents end in EOD ({eod_id}), expected all; the first that does not is document "
            f"{found.first_without_eod}. Give the EOD of its tokenizer, or tokenise it again."
        )


def _document_ends(arrays: IndexArrays) -> Iterator[NDArray[np.int64]]:
    end = 0
    for lens in _counted_lens(arrays):
        ends = end + np.cumsum(lens, dtype=np.int64)
        end = int(ends[-1])
        yield ends


def _counted_lens(arrays: IndexArrays) -> Iterator[NDArray[np.int32]]:
    for lens in arrays.lens_blocks():
        if lens.max() == np.iinfo(np.int32).max:
            raise ShardError(
                f"{arrays.file.path}: a document has {lens.max():,} tokens, and its length cannot "
                f"hold one more. Tokenise the shard again, in shorter documents."
            )
        yield lens + np.int32(1)


def _replace_index(prefix: Path, arrays: IndexArrays) -> None:
    idx_path = Path(f"{prefix}.idx")
    remove_file_partials(idx_path)
    partial = partial_path(idx_path)
    try:
        with written(idx_path), partial.open("wb") as file:
            file.writelines(
                encode_index_blocks(
                    arrays.header, lambda: _counted_lens(arrays), arrays.document_blocks()
                )
            )
            flush_and_close(file)
        _keep(idx_path)
        partial.replace(idx_path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(idx_path.parent)


def _keep(idx_path: Path) -> None:
    """Give the old ``.idx`` a second name, unless it has it from an interrupted repair."""
    kept = Path(f"{idx_path}.before-repair")
    try:
        os.link(idx_path, kept)
    except FileExistsError:
        if not filecmp.cmp(idx_path, kept, shallow=False):
            raise ShardError(
                f"{kept}: exists, and is not the present {idx_path.name}. Move it away first."
            ) from None
    except OSError as error:
        raise ShardError(
            f"{kept}: cannot be linked to {idx_path.name} ({error.strerror}). Copy {idx_path.name} "
            f"to this name, then repair again."
        ) from error
    # The old file has its second name on disk before it loses the first.
    sync_folder(idx_path.parent)

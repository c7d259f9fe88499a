"""Repair of ``.idx`` files that are wrong in a known way; the tokens stay as they are.

What is wrong, and how the tokens prove the correction, is in ``layouts.py``.
"""

import filecmp
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blendtitan.config import check_at_least
from blendtitan.errors import ShardError
from blendtitan.shards.checksums import Catalogs
from blendtitan.shards.layouts import Layout, right_layout
from blendtitan.shards.verify import Expected, verify_shard
from blendtitan.storage.atomic_files import flush_and_close, partial_path, sync_folder, writing
from blendtitan.storage.ends import DocumentEnds
from blendtitan.storage.list_forms import NamedShard, named_shards
from blendtitan.storage.reader import FileSignature, ShardIndex, file_signature
from blendtitan.storage.record_files import write_ends
from blendtitan.storage.records import ENDS_SUFFIX
from blendtitan.storage.writer import remove_partials
from blendtitan.visible import counted

_KEPT_SUFFIX = ".idx.before-repair"


@dataclass(frozen=True, slots=True)
class RepairedShard:
    """What became of a shard. One without corrections has nothing wrong, or an error."""

    prefix: Path
    corrections: list[str] = field(default_factory=list)
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
        kept = "is as it was" if len(shards) == 1 else "are as they were"
        refused = f"{len(errors):,} of {counted(len(shards), 'shard')} {kept}"
        raise ShardError(*errors, refused)


def repair_shard(prefix: Path, *, eod_id: int) -> list[str]:
    """Correct the ``.idx`` of a shard, and keep the old one beside it.

    The new ``.idx`` takes the place of the old one in one step, so whoever reads the shard has
    the one or the other, whatever happens. The old one stays as ``.idx.before-repair``.

    Returns:
        What was corrected, in words. Empty where every entry is right, and nothing was done.

    Raises:
        ShardError: Something else is wrong with the shard, or its tokens do not prove the
            correction. Nothing was changed.
    """
    if Path(f"{prefix}{_KEPT_SUFFIX}").exists():
        remove_partials(prefix)  # Of an earlier repair that was killed.
    before = file_signature(str(prefix))
    layout = right_layout(prefix, eod_id=eod_id)
    if layout.is_right:
        _check_good(prefix, eod_id)
        return []
    idx = _replace_index(prefix, layout)
    _record(prefix, layout.ends, before and before.with_idx(idx))
    ShardIndex.open(prefix)
    return layout.corrections()


def _repaired(prefix: Path, eod_id: int) -> RepairedShard:
    try:
        return RepairedShard(prefix, repair_shard(prefix, eod_id=eod_id))
    except ShardError as error:
        return RepairedShard(prefix, error=str(error))


def _check_good(prefix: Path, eod_id: int) -> None:
    """Check a shard whose ``.idx`` needs no correction as ``blendtitan verify`` does.

    Raises:
        ShardError: Something is wrong that no correction of the ``.idx`` makes right.
    """
    shard = NamedShard(prefix, prefix.name)
    found = verify_shard(shard, Expected(eod_id=eod_id), Catalogs())
    if found.problems:
        raise ShardError(*(f"not repairable: {problem}" for problem in found.problems))


def _record(prefix: Path, ends: DocumentEnds | None, stamp: FileSignature | None) -> None:
    """Record what was proven of the tokens; a record of the old ``.idx`` is wrong by now."""
    if ends is None or not write_ends(prefix, ends, stamp):
        Path(f"{prefix}{ENDS_SUFFIX}").unlink(missing_ok=True)


def _replace_index(prefix: Path, layout: Layout) -> os.stat_result:
    idx_path = Path(f"{prefix}.idx")
    remove_partials(prefix)
    partial = partial_path(idx_path)
    try:
        with writing(idx_path), partial.open("wb") as file:
            file.writelines(layout.encoded())
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
    kept = idx_path.with_name(f"{idx_path.stem}{_KEPT_SUFFIX}")
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

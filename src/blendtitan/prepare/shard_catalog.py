"""``shards.catalog`` of an output of ``blendtitan tokenize``.

The entries of its own shards come from their records. An entry of any other shard, which somebody
copied into the folder together with it, is kept as long as the shard is there.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from blendtitan.errors import CorruptShardError
from blendtitan.files import DamagedFileError
from blendtitan.prepare.join import Record, load_manifests, read_record, record_paths
from blendtitan.prepare.parts import Manifest
from blendtitan.storage.atomic_files import remove_file_partials, writing
from blendtitan.storage.record_files import write_folder_catalog
from blendtitan.storage.records import CATALOG_FILE, CatalogEntry, read_folder_catalog
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


def write_catalog(output: Path) -> None:
    """List the shards below ``output`` in its catalog, with their digests.

    Several commands may finish at once. Whoever writes looks again, so that the last one to
    write has seen what all of them recorded.

    Raises:
        MissingShardError: The catalog that is there cannot be read.
    """
    remove_file_partials(output / CATALOG_FILE)
    found = None
    while found != (found := _record_times(output)):
        entries = _other_entries(output) | dict(_own_entries(output))
        if entries:
            write_folder_catalog(output, entries)
        else:
            (output / CATALOG_FILE).unlink(missing_ok=True)


def withdraw_entries(output: Path, prefixes: Collection[Path]) -> None:
    """Remove shards that are about to change from the catalog, and all that have a record.

    The catalog would be wrong until ``write_catalog`` writes it again.
    """
    kept = _other_entries(output, but=prefixes)
    path = output / CATALOG_FILE
    if kept:
        write_folder_catalog(output, kept)
        return
    with writing(path):
        path.unlink(missing_ok=True)


def _record_times(output: Path) -> dict[Path, int]:
    times: dict[Path, int] = {}
    for _, path in record_paths(output):
        with suppress(FileNotFoundError):
            times[path] = path.stat().st_mtime_ns
    return times


def _own_entries(output: Path) -> Iterator[tuple[str, CatalogEntry]]:
    for prefix, path in record_paths(output):
        record = read_record(prefix, path)
        if record is None or not record.counts.documents:
            continue
        try:
            manifests = load_manifests(path)
        except FileNotFoundError:
            continue
        except DamagedFileError as error:
            logger.warning(
                "%s. Its shard is not listed in %s: delete the record, and tokenise its input "
                "again with --overwrite.",
                *(error, CATALOG_FILE),
            )
            continue
        yield str(prefix.relative_to(output)), _catalog_entry(record, manifests)


def _other_entries(output: Path, but: Collection[Path] = ()) -> dict[str, CatalogEntry]:
    """Entries of the catalog whose shards are there and have no record of this command."""
    try:
        listed = read_folder_catalog(output) or {}
    except CorruptShardError as error:
        logger.warning("%s Its entries of shards that tokenize did not make are lost.", error)
        return {}
    excluded = {*but, *(prefix for prefix, _ in record_paths(output))}
    return {
        name: entry
        for name, entry in listed.items()
        if (prefix := output / name) not in excluded
        if all(Path(f"{prefix}{suffix}").is_file() for suffix in (".bin", ".idx"))
    }


def _catalog_entry(record: Record, manifests: Sequence[Manifest]) -> CatalogEntry:
    token_bytes = np.dtype(record.settings.dtype).itemsize
    parts = ((part.counts.tokens * token_bytes, part.digests["tokens"]) for part in manifests)
    return CatalogEntry(
        documents=record.counts.documents,
        tokens=record.counts.tokens,
        dtype=record.settings.dtype,
        idx_digest=record.idx_digest,
        bin_digests=tuple(part for part in parts if part[0]),
    )

"""Shards against the catalogs beside them: whether a copy is complete."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from xxhash import xxh3_128

from blendtitan.storage.list_forms import NamedShard, corpus_in_folder
from blendtitan.storage.reader import OpenFile
from blendtitan.storage.records import CATALOG_FILE, CatalogEntry, FolderCatalogs

_BLOCK_BYTES = 1 << 20


class Catalogs(FolderCatalogs):
    """The catalogs of the folders that shards lie in."""

    def missing(self, inputs: Sequence[Path], found: Sequence[NamedShard]) -> list[NamedShard]:
        """Shards that a catalog below one of the folders lists but that are not there.

        Raises:
            ShardError: A catalog cannot be read.
        """
        known = {shard.prefix.absolute() for shard in found}
        listed = {
            folder / name: path
            for path in inputs
            if path.is_dir()
            for folder in (file.parent for file in sorted(path.rglob(CATALOG_FILE)))
            for name in self.of_folder(folder.absolute()) or ()
        }
        return [
            NamedShard(prefix, corpus_in_folder(prefix, path))
            for prefix, path in listed.items()
            if prefix.absolute() not in known
        ]


class PartDigests:
    """Digests of the consecutive parts of a file that is read once from its beginning."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._digests = [xxh3_128() for _ in sizes]
        self._left = list(sizes)
        """Bytes of each part that are still to come."""
        self._part = 0

    def update(self, data: memoryview) -> None:
        """Add the next bytes of the file. Bytes after the last part are ignored."""
        while len(data) and self._part < len(self._left):
            taken = data[: self._left[self._part]]
            self._digests[self._part].update(taken)
            self._left[self._part] -= len(taken)
            data = data[len(taken) :]
            self._part += self._left[self._part] == 0

    def hexdigests(self) -> list[str]:
        """One digest for each part."""
        return [digest.hexdigest() for digest in self._digests]


def idx_problems(prefix: Path, entry: CatalogEntry) -> Iterator[str]:
    """A sentence if the checksum of an ``.idx`` differs."""
    path = f"{prefix}.idx"
    file, digest = OpenFile.open(path), xxh3_128()
    for at in range(0, file.num_bytes, _BLOCK_BYTES):
        digest.update(file.read(min(_BLOCK_BYTES, file.num_bytes - at), at=at))
    if digest.hexdigest() != entry.idx_digest:
        yield _problem(path, digest.hexdigest(), entry.idx_digest)


def bin_problems(prefix: Path, entry: CatalogEntry, found: Sequence[str]) -> Iterator[str]:
    """A sentence about the first part of a ``.bin`` whose digest differs from ``found``."""
    start = 0
    for (num_bytes, expected), digest in zip(entry.bin_digests, found, strict=True):
        if digest != expected:
            where = f"{prefix}.bin, bytes {start:,} to {start + num_bytes - 1:,}"
            yield _problem(where, digest, expected)
            return
        start += num_bytes


def _problem(where: str, found: str, expected: str) -> str:
    return (
        f"{where}: the checksum is {found}, expected {expected}, from {CATALOG_FILE}. The file was "
        f"damaged or changed: copy both files of the shard again, or tokenise it again. After a "
        f"change on purpose, delete {CATALOG_FILE}."
    )

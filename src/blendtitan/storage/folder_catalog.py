"""The catalog of a folder of shards: what each of them held when it was written.

It lies beside the shards and travels with them, so that a copy can be proved to be whole.
"""

import functools
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from blendtitan.errors import CorruptShardError, MissingShardError
from blendtitan.regular_files import read_file
from blendtitan.storage.json_files import DamagedFileError, parse_json
from blendtitan.storage.retries import RETRIES
from blendtitan.storage.writer import write_atomically

CATALOG_FILE = "shards.catalog"
"""Its name in the folder. The content is JSON."""

CHECKSUM = "xxh3_128"
"""The hash of all digests: fast enough to check shards at the speed of the disk."""

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One shard, by what it held when it was written."""

    documents: int
    tokens: int
    dtype: str

    idx_digest: str
    """Of the whole ``.idx``."""

    bin_digests: tuple[tuple[int, str], ...]
    """Size in bytes and digest of neighbouring parts, which together are the ``.bin``."""


def write_folder_catalog(folder: Path, entries: Mapping[str, CatalogEntry]) -> None:
    """Write the catalog of a folder, unless it is there with the same content.

    Args:
        folder: Folder of the shards.
        entries: Shards by their prefix, relative to the folder.
    """
    shards = {name: asdict(entry) for name, entry in sorted(entries.items())}
    content = {"format": _FORMAT, "checksum": CHECKSUM, "shards": shards}
    data = json.dumps(content, indent=1).encode()
    path = folder / CATALOG_FILE
    found = None
    # What cannot be read cannot be replaced either, which is an error that names the file.
    with suppress(OSError):
        found = read_file(path)
    if found != data:
        write_atomically(path, data)


def read_folder_catalog(folder: Path) -> dict[str, CatalogEntry] | None:
    """Shards that the catalog of a folder lists, by prefix. None: there is no catalog.

    Raises:
        CorruptShardError: The catalog cannot be understood.
        MissingShardError: It cannot be read.
    """
    path = folder / CATALOG_FILE
    try:
        data = RETRIES.tried(lambda: read_file(path), path=str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise MissingShardError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        content = json.loads(data)
        if (content["format"], content["checksum"]) != (_FORMAT, CHECKSUM):
            raise ValueError(f"format {content['format']} with {content['checksum']}")
        return {name: _entry(**fields) for name, fields in content["shards"].items()}
    # Infinity is a number to Python's JSON, and no int.
    except (
        *(ValueError, KeyError, TypeError, AttributeError),
        *(RecursionError, OverflowError),
    ) as error:
        raise CorruptShardError(
            f"{path}: not a catalog of format {_FORMAT} with {CHECKSUM} ({_damage(data)}). Copy it "
            f"again with the shards, or delete it to go without checksums."
        ) from error


@dataclass(frozen=True, slots=True)
class _Content:
    format: int
    checksum: str
    shards: dict[str, CatalogEntry]


def _damage(data: bytes) -> str:
    """What a file holds in place of a catalog. A sound one is read faster without these checks."""
    try:
        content = parse_json(data, _Content)
    except DamagedFileError as error:
        return f"it {error}"
    return f"it is of format {content.format} with {content.checksum:.40}"


class FolderCatalogs:
    """The catalogs of the folders that shards lie in, each read once."""

    def __init__(self) -> None:
        self.of_folder = functools.cache(read_folder_catalog)
        self._nearest = functools.cache(self._find_nearest)

    def entry(self, prefix: str) -> CatalogEntry | None:
        """What the nearest catalog at or above a shard's folder lists it with, if it does.

        Args:
            prefix: Absolute path of the shard. There may be 100,000 in few folders.

        Raises:
            ShardError: The catalog cannot be read.
        """
        root, catalog = self._nearest(prefix[: prefix.rfind("/") + 1])
        return catalog.get(prefix[len(root) :]) if catalog else None

    def _find_nearest(self, folder: str) -> tuple[str, dict[str, CatalogEntry] | None]:
        """The nearest folder with a catalog, with a slash at its end, and the catalog."""
        path = Path(folder)
        for root in (path, *path.parents):
            catalog = self.of_folder(root)
            if catalog is not None:
                return f"{str(root).rstrip('/')}/", catalog
        return folder, None


def _entry(
    *,
    documents: int,
    tokens: int,
    dtype: str,
    idx_digest: str,
    bin_digests: list[tuple[int, str]],
) -> CatalogEntry:
    parts = tuple((int(num_bytes), str(digest)) for num_bytes, digest in bin_digests)
    return CatalogEntry(int(documents), int(tokens), str(dtype), str(idx_digest), parts)

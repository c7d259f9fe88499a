"""Stamps: what tells, without opening a shard, whether its files are those of before.

The file system is asked once for each file; on a network every question is a round trip.
"""

import os
from typing import NamedTuple, Self


class Stamp(NamedTuple):
    """What the file system knows of the two files of a shard."""

    idx_bytes: int
    idx_changed_ns: int
    """Time of change."""
    bin_bytes: int
    bin_changed_ns: int
    bin_device: int
    bin_inode: int

    @classmethod
    def of_files(cls, idx: os.stat_result, tokens: os.stat_result) -> Self:
        """The stamp of an ``.idx`` and a ``.bin``."""
        return cls(
            *(idx.st_size, idx.st_mtime_ns, tokens.st_size, tokens.st_mtime_ns),
            *(tokens.st_dev, tokens.st_ino),
        )

    def with_idx(self, idx: os.stat_result) -> Self:
        """The stamp with another ``.idx``."""
        return self._replace(idx_bytes=idx.st_size, idx_changed_ns=idx.st_mtime_ns)

    @property
    def contents(self) -> tuple[int, int, int, int]:
        """Sizes and times of change of both files."""
        return self[:4]

    @property
    def bin_file(self) -> tuple[int, int]:
        """Equal for two paths that lead to one ``.bin``."""
        return self[4:]


def stamp_of(prefix: str) -> Stamp | None:
    """The stamp of a shard. None: one of its files is missing, or cannot be asked for."""
    try:
        return Stamp.of_files(os.stat(f"{prefix}.idx"), os.stat(f"{prefix}.bin"))
    except OSError:
        return None

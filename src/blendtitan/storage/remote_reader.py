"""A file of a store as an open file, for libraries that read Parquet."""

import io
from io import BufferedReader

from blendtitan.storage.remote_file import RemoteFile

_BUFFER_BYTES = 1 << 20


def open_remote(url: str) -> BufferedReader:
    """A file to be read in pieces; each piece is a request.

    Raises:
        OSError: It is missing, or cannot be read.
    """
    return BufferedReader(_Reader(RemoteFile.find(url)), _BUFFER_BYTES)


class _Reader(io.RawIOBase):
    """Reads at a position. Errors are those of ``RemoteFile.fetch``."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.num_bytes}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        count = max(0, min(len(buffer), self._file.num_bytes - self._at))
        buffer[:count] = self._file.fetch(self._at, count)
        self._at += count
        return count

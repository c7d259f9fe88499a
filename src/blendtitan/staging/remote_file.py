"""Files of a store whose blocks are staged. Imported when a shard is in object storage."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from blendtitan.files import url_of
from blendtitan.staging.files import StagedBlocks
from blendtitan.storage.failed_reads import missing_error
from blendtitan.storage.remote_file import Range, RemoteFile


class StagedRemoteFile(RemoteFile):
    """A file of a store."""

    __slots__ = ("staged",)

    staged: StagedBlocks

    @classmethod
    def open(cls, path: str) -> "StagedRemoteFile":
        """As ``OpenFile.open``."""
        try:
            return cls.find(path)
        except OSError as error:
            raise missing_error(url_of(path) or path, "opened", error) from error

    def ranges(self, at: int, num_bytes: int) -> Iterator[Range]:
        """The parts of a read that are not staged."""
        for begin, length in self.staged.missing(at, num_bytes):
            yield Range(self, begin, length)

    def read_into(self, buffer: NDArray[np.integer], *, at: int) -> None:
        """As ``OpenFile.read_into``."""
        view = buffer.data.cast("B")
        for begin, length in self.staged.read_into(view, at):
            view[begin - at :][:length] = self._bytes(begin, length)

    def fetch(self, at: int, num_bytes: int) -> bytes:
        """As ``RemoteFile.fetch``."""
        data = super().fetch(at, num_bytes)
        self.staged.stage.count(direct=num_bytes)
        return data

    def fetch_staged(self, at: int, num_bytes: int) -> bytes:
        """Bytes to be staged, from the store."""
        return super().fetch(at, num_bytes)

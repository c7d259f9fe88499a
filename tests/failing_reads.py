"""Faults below the reader: reads that fail, come late, or give only a part."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from blendtitan.retries import RETRIES


class Disk:
    """Stands in place of ``os.pread`` and ``os.preadv``.

    ``errors`` are raised by the next reads, one each; ``staying`` by every read of a file whose
    path ends in ``ending``. No read gives more than ``most_bytes``, or takes less than ``seconds``.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: list[int] = []
        self.staying: int | None = None
        self.ending = ""
        self.most_bytes: int | None = None
        self.seconds = 0.0
        self.reads = 0
        self.pauses: list[float] = []
        self._pread, self._preadv = os.pread, os.preadv
        self._retries_before = RETRIES.total
        monkeypatch.setattr(os, "pread", self._slow(self._short_pread))
        monkeypatch.setattr(os, "preadv", self._slow(self._short_preadv))
        monkeypatch.setattr(RETRIES, "sleep", self.pauses.append)

    @property
    def retries(self) -> int:
        """Reads tried again since this disk is in use."""
        return RETRIES.total - self._retries_before

    def _short_pread(self, fd: int, num_bytes: int, at: int) -> bytes:
        return self._pread(fd, min(num_bytes, self.most_bytes or num_bytes), at)

    def _short_preadv(self, fd: int, buffers: Sequence[memoryview], at: int) -> int:
        buffer = memoryview(buffers[0]).cast("B")
        return self._preadv(fd, [buffer[: self.most_bytes or len(buffer)]], at)

    def _slow(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(fd: int, *arguments: Any) -> Any:
            self.reads += 1
            if self.seconds:
                time.sleep(self.seconds)
            if self.errors:
                raise _error(self.errors.pop(0))
            if self.staying is not None:
                path = os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")
                if path.endswith(self.ending):
                    raise _error(self.staying)
            return read(fd, *arguments)

        return faulty


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))

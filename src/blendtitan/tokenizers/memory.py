"""Memory of this process that libraries hold, where Python does not see it."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int | None:
    """Memory that this process occupies. None: the system does not tell, as on macOS."""
    if not _STATM.exists():
        return None
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def return_freed_memory() -> None:
    """Give memory that was freed back to the system, of which glibc would keep much."""
    with suppress(AttributeError):  # Other C libraries do it by themselves.
        ctypes.CDLL(None).malloc_trim(0)

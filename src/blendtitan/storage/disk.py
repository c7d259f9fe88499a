"""What to say when the system refuses to write: which file, which disk, and what to do."""

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from blendtitan.errors import OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def written(path: Path) -> Generator[None]:
    """A block that writes ``path``, or what takes its name when it is complete.

    The system's own error names no file when a write fails, and no disk at all.

    Raises:
        OutputError: The disk is full, or does not let the file be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise OutputError(
                f"{path}: cannot be written: {error.strerror}. {space_on_disk(path.parent)} Make "
                f"space there, or choose another folder, and run again."
            ) from error
        # A file that is read inside the block is named by the system's error.
        if error.errno in _FORBIDDEN and str(error.filename).startswith(str(path)):
            raise OutputError(
                f"{path}: cannot be written: {error.strerror}. Allow it, or choose another folder."
            ) from error
        raise


def space_on_disk(folder: Path) -> str:
    """Which disk a folder is on, and how much room that has, in a sentence."""
    usage = shutil.disk_usage(folder)
    mount = folder.absolute()
    while not os.path.ismount(mount):
        mount = mount.parent
    return f"The disk mounted at {mount} has {usage.free:,} of {usage.total:,} bytes free."

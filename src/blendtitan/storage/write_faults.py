"""Errors for files that cannot be written, which name the file and the disk."""

import errno
import os
import shutil
from pathlib import Path

from blendtitan.errors import OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
# A folder in place of a file, or a file in place of a folder.
_IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)


def write_fault(path: Path, error: OSError) -> OutputError | None:
    """Our error for one of the system while a file is written. None: it is about something else."""
    if error.errno in _FULL:
        return OutputError(
            f"{path}: cannot be written: {error.strerror}. {space_on_disk(path.parent)} Free "
            f"some space there, or choose another folder, and run again."
        )
    # The system's error names a file that is read inside the block.
    if error.errno in _FORBIDDEN and str(error.filename).startswith(str(path)):
        return OutputError(
            f"{path}: cannot be written: {error.strerror}. Change the permissions, or choose "
            f"another folder."
        )
    named = str(error.filename2 or error.filename)
    if error.errno in _IN_THE_WAY and named.startswith(str(path)):
        return OutputError(
            f"{path}: cannot be written: {error.strerror}. Move away the file or folder in its "
            f"place, or choose another folder for the output."
        )
    return None


def space_on_disk(folder: Path) -> str:
    """A sentence that names the disk of a folder and its free space."""
    usage = shutil.disk_usage(folder)
    mount = folder.absolute()
    while not os.path.ismount(mount):
        mount = mount.parent
    return f"The disk mounted at {mount} has {usage.free:,} of {usage.total:,} bytes free."

"""What to say when the system refuses to write: which file, which disk, and what to do."""

import errno
import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from blendtitan.errors import ConfigError, OutputError
from blendtitan.regular_files import open_file

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
# A folder where a file is to be, or a file where a folder is to be.
_IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)

_NOTE_BYTES = 10_000


@contextmanager
def written(path: Path) -> Generator[None]:
    """A block that writes ``path``, or what takes its name when it is complete.

    The system's own error names no file when a write fails, and no disk at all.

    Raises:
        OutputError: The disk is full or does not let the file be written, or a folder has its
            name.
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
        named = str(error.filename2 or error.filename)
        if error.errno in _IN_THE_WAY and named.startswith(str(path)):
            raise OutputError(
                f"{path}: cannot be written: {error.strerror}. Move away what is in its place, or "
                f"choose another folder for the output."
            ) from error
        raise


def check_replaceable(path: Path, pattern: str) -> None:
    """Check that writing a file would replace nothing, or only an earlier output of its kind.

    Args:
        path: The file to write.
        pattern: Regular expression that is found in the beginning of every earlier output. A ``$``
            is the end of a line.

    Raises:
        ConfigError: Something else has its name.
    """
    if not os.path.lexists(path):
        return
    found = read_note(path) if path.is_file() else ""
    if not re.search(pattern, found, re.MULTILINE):
        raise ConfigError(
            f"{path}: exists already, and was not written by this command. Choose another name or "
            f"folder, move it away, or replace it with --overwrite."
        )


def read_note(path: Path) -> str:
    """The first thousands of characters of a file that a person is shown, whatever it holds."""
    try:
        with open_file(path) as file:
            return file.read(_NOTE_BYTES).decode(errors="replace").strip()
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})."


def space_on_disk(folder: Path) -> str:
    """Which disk a folder is on, and how much room that has, in a sentence."""
    usage = shutil.disk_usage(folder)
    mount = folder.absolute()
    while not os.path.ismount(mount):
        mount = mount.parent
    return f"The disk mounted at {mount} has {usage.free:,} of {usage.total:,} bytes free."

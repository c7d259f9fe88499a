"""Objects written to a store, and deleted."""

import errno
from contextlib import suppress
from pathlib import Path

import obstore

from blendtitan.files import with_retries
from blendtitan.remote import folder_of, look_up, os_errors, place

_PART_BYTES = 1 << 23
_MOST_PARTS = 9000  # S3 takes 10,000


def upload(url: str, content: bytes | Path) -> None:
    """Write an object, which appears when all of it has arrived, and check its size.

    A large file is sent in parts. Requests to S3 are signed with the SHA-256 of their content, so
    S3 refuses one that was damaged on the way.

    Raises:
        OSError: The object cannot be written, or the file cannot be read.
    """
    store, key = place(url, writes=True)
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    part = max(_PART_BYTES, -(-size // _MOST_PARTS))

    def attempt() -> str | None:
        with os_errors(url):
            return obstore.put(store, key, content, chunk_size=part)["e_tag"]

    try:
        e_tag = with_retries(attempt, path=url)
    except FileNotFoundError:
        raise OSError(errno.ENXIO, "there is no such bucket", url) from None
    with suppress(FileNotFoundError):  # another process deleted it
        found = look_up(url)
        # Another process may have replaced it, as with the catalog.
        if found.num_bytes != size and e_tag in (None, found.e_tag):
            text = f"found {found.num_bytes:,} bytes after an upload of {size:,}"
            raise OSError(errno.EIO, text, url)


def delete(url: str) -> None:
    """Delete an object if there is one.

    Raises:
        OSError: It cannot be deleted.
    """
    try:
        look_up(url)
    except FileNotFoundError:
        return
    store, key = place(url, writes=True)

    def attempt() -> None:
        with suppress(FileNotFoundError), os_errors(url):
            obstore.delete(store, key)

    with_retries(attempt, path=url)
    folder_of(url).objects.pop(url, None)

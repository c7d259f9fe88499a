"""Small JSON files in the user's cache folder, which several processes may use at once.

A file that is damaged counts as absent, and a folder that cannot be written to is no error: what
is kept here can be computed again.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import orjson

from blendtitan.files import read_file
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_WAIT_SECONDS = 180
_POLL_SECONDS = 0.2


def cache_path(key: str) -> Path:
    """The file of a key, below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "blendtitan" / "tokenizer-proofs" / f"{key[:40]}.json"


def hashed(*parts: object) -> str:
    """A key for some values."""
    return hashlib.sha256(orjson.dumps(list(parts), option=orjson.OPT_SORT_KEYS)).hexdigest()


def read(key: str) -> dict[str, Any] | None:
    """What was kept under a key. None: nothing, or not what was written."""
    try:
        found = orjson.loads(read_file(cache_path(key)))
        if found["key"] == key and found["digest"] == hashed(found["value"]):
            return found["value"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    logger.warning("%s: is damaged, and is made again", cache_path(key))
    return None


def write(key: str, value: dict[str, Any]) -> bool:
    """Keep a value; whether it could be kept."""
    path = cache_path(key)
    content = orjson.dumps({"key": key, "digest": hashed(value), "value": value})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
            file.write(content)
        os.replace(file.name, path)
    except OSError:
        return False
    return True


@contextmanager
def locked(key: str) -> Iterator[None]:
    """Wait while another process computes a value: for minutes at most, where files have locks."""
    path = cache_path(key).with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError:
        yield
        return
    with file:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not _is_locked(file.fileno()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        yield
    with suppress(OSError):
        path.unlink()


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Some network file systems have no locks. Then each process computes the value.
        return True
    return True

"""Files in object storage and on web servers, read by ranges with obstore.

A run's file list may be a URL, and name shards by URLs such as ``s3://bucket/web/part_00``. Size
and ETag identify a file, or the time of its last change where a server gives no ETag: every read
compares them, so an object that is replaced during a run is an error.

obstore takes credentials and endpoints from environment variables and the cloud's own services.
None of them is logged.
"""

import contextlib
import errno
import functools
import os
import re
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from datetime import timedelta
from pathlib import Path, PosixPath
from typing import Any, NamedTuple

from blendtitan.errors import ConfigError, CorruptShardError, FileListError, requires_extra
from blendtitan.files import url_of, with_retries

with requires_extra("remote", "a path such as s3://bucket/data"):
    import obstore
    from obstore import exceptions
    from obstore.store import ObjectStore, from_url

# The library repeats a request a few times. `Retries` repeats it for longer, and logs that.
_RETRIES = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
_CLIENT = {"connect_timeout": "10s", "timeout": "60s", "allow_http": True}

# A busy server must not end an upload of many parts.
_UPLOAD_RETRIES = {"max_retries": 8, "retry_timeout": timedelta(minutes=3)}
_UPLOAD_SECONDS = "300s"

# A file list and what it names are read within this time after a folder was listed.
_FRESH_SECONDS = 60


class Found(NamedTuple):
    """Size and version of an object."""

    num_bytes: int
    version: str
    """Its ETag, without quotes, or the time of its last change. Empty: the server gives neither."""

    e_tag: str | None
    """What a server can compare: no weak ETag."""

    @classmethod
    def of(cls, meta: Any) -> "Found":
        """What obstore found."""
        e_tag, changed = meta["e_tag"], meta["last_modified"]
        is_weak = e_tag is None or e_tag.startswith("W/")
        version = (e_tag or "").removeprefix("W/").strip('"')
        if not version and changed.timestamp() > 0:
            version = changed.isoformat()
        return cls(meta["size"], version, None if is_weak else e_tag)


class RemotePath(PosixPath):
    """A URL as a path. It is shown as a URL, and its methods query the object store."""

    def __str__(self) -> str:
        return url_of(super().__str__()) or super().__str__()

    def absolute(self) -> "RemotePath":
        """The same path."""
        return self

    def resolve(self, strict: bool = False) -> "RemotePath":
        """The same path."""
        return self

    @property
    def parents(self) -> Sequence["RemotePath"]:  # pyright: ignore
        """Folders above, up to the bucket."""
        return tuple(super().parents)[:-2]

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object of this name."""
        if not place(str(self))[1]:
            return False  # a bucket
        try:
            head(str(self))
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether this is not an object but has objects below it. False if the store fails."""
        with contextlib.suppress(OSError):  # whoever reads the file reports that
            return not self.exists() and _has_objects(str(self))
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """The size, and nothing else."""
        return os.stat_result((0, 0, 0, 0, 0, 0, head(str(self)).num_bytes, 0, 0, 0))

    def read_bytes(self) -> bytes:
        """The content."""
        found = head(str(self))
        return read_range(str(self), 0, found.num_bytes, found) if found.num_bytes else b""


class _Folder:
    """What was found in a folder."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.objects: dict[str, Found] = {}
        self._listed_at: float | None = None
        self._is_refused = url.startswith(("http://", "https://"))
        self._lock = threading.Lock()

    @property
    def is_known(self) -> bool:
        """Whether it was listed a short time ago."""
        return self._listed_at is not None and time.monotonic() < self._listed_at + _FRESH_SECONDS

    def find(self, urls: Sequence[str]) -> None:
        """Look these files up again: list the folder, unless it was listed a short time ago."""
        with self._lock:
            if self.is_known:
                return
            for url in urls:
                self.objects.pop(url, None)
            if self._is_refused:
                return
            store, key = place(self.url)

            def attempt() -> Any:
                with os_errors(self.url):
                    return obstore.list_with_delimiter(store, key or None)

            try:
                self.keep(with_retries(attempt, path=self.url)["objects"])
            except PermissionError:
                self._is_refused = True  # one may read a bucket without listing it

    def keep(self, objects: Iterable[Any]) -> None:
        """Keep a list of the folder."""
        names = ((each["path"].rpartition("/")[2], each) for each in objects)
        self.objects = {self.url + name: Found.of(each) for name, each in names}
        self._listed_at = time.monotonic()


_folders: dict[str, _Folder] = {}
_is_forked = False


def _after_fork() -> None:
    """Requests of a forked process would wait for threads that only its parent has."""
    global _is_forked
    _is_forked = _is_forked or is_used()


os.register_at_fork(after_in_child=_after_fork)


def is_used() -> bool:
    """Whether this process has used a store, so that a fork of it cannot."""
    return _store.cache_info().currsize > 0


def forget() -> None:
    """Forget all files, so that they are looked up with the current credentials and endpoints."""
    forget_files()
    _store.cache_clear()


def forget_files() -> None:
    """Forget all files, which other processes may have written."""
    _folders.clear()


def find(urls: Sequence[str]) -> None:
    """Look up files of one folder, with one request if possible. Some may be missing."""
    folder_of(urls[0]).find(urls)


def head(url: str) -> Found:
    """Size and ETag of a file, as last looked up.

    Raises:
        OSError: It is missing, or cannot be read.
    """
    folder = folder_of(url)
    found = folder.objects.get(url)
    if found is None and folder.is_known:
        raise _missing(url)
    return look_up(url) if found is None else found


def look_up(url: str) -> Found:
    """Size and ETag of a file now; errors as ``head``."""
    store, key = place(url)

    def attempt() -> Any:
        with os_errors(url):
            return obstore.head(store, key)

    found = Found.of(with_retries(attempt, path=url))
    if not found.version:
        text = "the server gives neither ETag nor Last-Modified, so a change would not be seen"
        raise OSError(errno.ENOTSUP, text, url)
    folder_of(url).objects[url] = found
    return found


def read_range(url: str, at: int, num_bytes: int, found: Found) -> bytes:
    """Bytes of a file; fewer than ``num_bytes`` at its end.

    Raises:
        CorruptShardError: The file was replaced since ``found``.
        OSError: It is missing, or cannot be read.
    """
    store, key = place(url)
    options: Any = {"range": (at, at + num_bytes)}
    if found.e_tag is not None:
        options["if_match"] = found.e_tag

    def attempt() -> bytes:
        with os_errors(url):
            result = obstore.get(store, key, options=options)
            # Many web servers ignore If-Match.
            if Found.of(result.meta)[:2] != found[:2]:
                raise changed_error(url)
            return bytes(result.bytes())

    return with_retries(attempt, path=url)


def _has_objects(url: str) -> bool:
    """Whether there are objects below a URL."""
    if url.startswith(("http://", "https://")):
        return False
    store, key = place(url)
    with os_errors(url):
        found = obstore.list_with_delimiter(store, f"{key}/" if key else None)
    return bool(found["objects"] or found["common_prefixes"])


def prefixes_below(folder: str) -> list[Path]:
    """Prefixes of all ``.bin`` and ``.idx`` files below a folder, sorted.

    Raises:
        FileListError: It cannot be searched.
    """
    found = {url[:-4] for url in files_below(folder) if url.endswith((".idx", ".bin"))}
    return [RemotePath(url) for url in sorted(found)]


def files_below(folder: str) -> list[str]:
    """The URLs of all files below a folder.

    Raises:
        FileListError: It cannot be searched.
    """
    folder += "/"
    store, key = place(folder)

    def attempt() -> dict[str, list[Any]]:
        inner: dict[str, list[Any]] = {}
        with os_errors(folder):
            for page in obstore.list(store, key or None):
                for each in page:
                    below = each["path"][len(key) :]
                    inner.setdefault(folder + below[: below.rfind("/") + 1], []).append(each)
        return inner

    try:
        inner = with_retries(attempt, path=folder)
    except OSError as error:
        raise FileListError(f"{folder}: cannot be searched ({error.strerror})") from error
    for url, objects in inner.items():
        folder_of(url).keep(objects)
    return [url for name in inner for url in folder_of(name).objects]


def folder_of(url: str) -> _Folder:
    """What was found in the folder of a file."""
    name = url[: url.rfind("/") + 1]
    return _folders.get(name) or _folders.setdefault(name, _Folder(name))


def place(url: str, *, writes: bool = False) -> tuple[ObjectStore, str]:
    """The store of a URL, and the key in it."""
    if _is_forked:
        raise ConfigError(
            f"{url}: cannot be read in a process that was forked from one that read object "
            f"storage. Open the data in the new process, started with spawn."
        )
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    if scheme.startswith("http") and ("@" in host or "?" in path):
        where = f"{scheme}://{host.rpartition('@')[2]}/{path.partition('?')[0]}"
        raise ConfigError(
            f"{where}: found a URL with a password or a query, expected one with neither. Copy the "
            f"file, or let the server allow this host."
        )
    if scheme == "az":  # az://account/container/key
        container, _, path = path.partition("/")
        return _store(f"az://{host}/{container}", writes), path
    return _store(f"{scheme}://{host}", writes), path


@functools.cache
def _store(root: str, writes: bool) -> ObjectStore:
    client = _CLIENT | ({"timeout": _UPLOAD_SECONDS} if writes else {})
    options: Any = {"client_options": client}
    options["retry_config"] = _UPLOAD_RETRIES if writes else _RETRIES
    return from_url(root, **options)


@contextlib.contextmanager
def os_errors(url: str) -> Generator[None]:
    """Turn errors of obstore into those of files."""
    try:
        yield
    except FileNotFoundError:
        raise _missing(url) from None
    except exceptions.PreconditionError:
        raise changed_error(url) from None
    except exceptions.BaseError as error:
        text = _short(error)
        # For a refused listing, the library gives only the status.
        status = re.search(r"status code: (\d+)", text)
        refused = exceptions.PermissionDeniedError, exceptions.UnauthenticatedError
        if isinstance(error, refused) or (status and status[1] in ("401", "403")):
            text = f"{text}. Check the credentials and the permissions"
            raise PermissionError(errno.EACCES, text, url) from None
        if status and status[1] == "404":
            raise _missing(url) from None
        raise OSError(errno.EIO, text, url) from None


def _short(error: Exception) -> str:
    """An error of obstore in one line, without the query of a URL, which may hold a secret."""
    first = re.split(r"\s*(?:<\?xml|\n)", str(error), maxsplit=1)[0]
    return re.sub(r"\?\S+", "", first).rstrip(" :")


def _missing(url: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no such object", url)


def changed_error(url: str) -> CorruptShardError:
    """The error for an object that is not the one that was found first."""
    return CorruptShardError(
        f"{url}: was replaced during the run. Shards must not change while a run reads them. "
        f"Restore the object, and start again."
    )

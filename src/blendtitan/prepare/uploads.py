"""The output of ``tokenize`` in object storage: shards are made on a local disk, then uploaded.

Parts, claims and records are in the local ``work_folder``. The store has the shards and, as a local
output has, their records in ``.blendtitan``. The record of a shard is uploaded first, which shows
who made it, and its ``.idx`` last: until then, no reader finds the shard.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from blendtitan.errors import ConfigError, FileListError
from blendtitan.files import DamagedFileError, io_map, read_file
from blendtitan.prepare.input_file import REJECTS_SUFFIX, WORK_FOLDER, work_folder
from blendtitan.prepare.plan import PARTS_SUFFIX, RECORD_SUFFIX, Shard
from blendtitan.prepare.records import parse_record, record_paths
from blendtitan.remote import Found, files_below, forget_files, head, look_up
from blendtitan.storage.atomic_files import Process, write_atomically, writing
from blendtitan.storage.reader import file_signature
from blendtitan.storage.record_writer import encode_ends
from blendtitan.storage.records import ENDS_SUFFIX, read_ends
from blendtitan.storage.records import RECORD_SUFFIX as TOKENIZER_SUFFIX
from blendtitan.storage.remote_file import signature
from blendtitan.storage.remote_writes import delete, upload
from blendtitan.storage.writer import DOCS_SUFFIX
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


def begin(output: Path) -> None:
    """Check that an output can be written, and fetch the records of its shards.

    Raises:
        ConfigError: It cannot be read or written.
    """
    work = work_folder(output)
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
    test = f"{output}/{WORK_FOLDER}/write-test-{Process.current().name}"
    try:
        fetch_records(output)
        upload(test, b"This file shows that the folder can be written. It can be deleted.\n")
        with suppress(PermissionError):
            delete(test)
    except FileListError as error:
        raise ConfigError(
            f"{error}. Expected a bucket that exists, and permissions to list, read and write it"
        ) from error
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written ({error.strerror})") from error
    logger.info("%s: shards are made in %s, and uploaded when they are complete", output, work)


def fetch_records(output: Path) -> None:
    """Make the local records of an output those of its complete shards in the store.

    Other processes may finish shards meanwhile: they write the local record when all has arrived.

    Raises:
        FileListError: The output cannot be listed.
        OSError: A record cannot be read.
    """
    known = {path: read_file(path) for _, path in record_paths(output)}
    forget_files()
    top, work = f"{output}/{WORK_FOLDER}/", work_folder(output)
    urls = [url for url in files_below(str(output)) if url.startswith(top)]
    stored = {work / url.removeprefix(top): url for url in urls if url.endswith(RECORD_SUFFIX)}
    for path in known.keys() - stored.keys():
        _forget(path, known[path])

    def fetch(path: Path) -> None:
        content, url = known.get(path), stored[path]
        # The ETag of a small object is usually this digest.
        if content is None or hashlib.md5(content).hexdigest() != head(url).version:
            content = read_file(url)
        name = str(path.relative_to(work)).removesuffix(RECORD_SUFFIX)
        if not any(_is_complete(f"{output}/{name}", content, look) for look in (head, look_up)):
            _forget(path, content)
            # The shard is ours, but an upload was interrupted, or it was damaged.
            parts = work / f"{name}{PARTS_SUFFIX}"
            parts.mkdir(parents=True, exist_ok=True)
            write_atomically(parts / "placing", b"")
        elif known.get(path) != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)

    io_map(fetch, [*stored])


def _forget(path: Path, content: bytes) -> None:
    """Delete a record, unless another process has written a new one."""
    with suppress(FileNotFoundError):
        if read_file(path) == content:
            path.unlink()


def _is_complete(prefix: str, content: bytes, look: Callable[[str], Found]) -> bool:
    """Whether a shard has the files that its record implies. Damage is reported elsewhere."""
    try:
        record = parse_record(content.partition(b"\n")[0])
    except DamagedFileError:
        return True
    if record is None or not record.counts.documents:
        return True
    try:
        has_docs = record.docs is None or look(f"{prefix}{DOCS_SUFFIX}").num_bytes > 0
        sizes = {suffix: look(f"{prefix}{suffix}").num_bytes for suffix in record.sizes()}
    except FileNotFoundError:
        return False
    return has_docs and sizes == record.sizes()


def upload_shard(shard: Shard, record: bytes) -> None:
    """Upload a shard, which was made under its ``local_prefix``, and its record.

    Raises:
        OSError: An object cannot be written.
    """
    url, local = str(shard.prefix), str(shard.local_prefix)
    # Deleted first, so that an old .idx never describes the new .bin.
    replaced = (".idx", ENDS_SUFFIX, DOCS_SUFFIX, REJECTS_SUFFIX)
    for suffix in replaced:
        delete(f"{url}{suffix}")
    upload(shard.stored_record, record)
    if shard.rejects_path.exists():
        upload(f"{url}{REJECTS_SUFFIX}", shard.rejects_path)
    for suffix in (".bin", DOCS_SUFFIX, TOKENIZER_SUFFIX, ".idx"):
        if (file := Path(f"{local}{suffix}")).exists():  # empty inputs have no shard
            upload(f"{url}{suffix}", file)
    _upload_ends(url, local)


def _upload_ends(url: str, local: str) -> None:
    """Record the ends of documents, for the versions of the files in the store."""
    made, stored = file_signature(local), signature(url, again=False)
    ends = made and read_ends(local, made)
    if ends and stored:
        upload(f"{url}{ENDS_SUFFIX}", encode_ends(ends, stored))

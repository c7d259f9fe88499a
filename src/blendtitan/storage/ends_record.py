"""The record of how a shard's documents end: ``PREFIX.ends.json``, beside its files.

It holds sizes and times of change of both files, and is believed only where they are still the
same. It can be deleted at any time: whoever needs it looks at the documents again.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from blendtitan.errors import OutputError
from blendtitan.regular_files import open_file
from blendtitan.storage.document_ends import DocumentEnds, find_document_ends
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.stamps import Stamp, stamp_of
from blendtitan.storage.writer import replaced_file

RECORD_SUFFIX = ".ends.json"
"""What the name of a record has after the prefix of the shard."""

_FORMAT = 1
# A record has about 200 bytes. Whatever is much larger is something else.
_MOST_BYTES = 4096


def read_ends(prefix: str, stamp: Stamp, eod_id: int) -> DocumentEnds | None:
    """What is recorded of a shard. None: nothing, or of other files, or of another token."""
    try:
        content = json.loads(_content(f"{prefix}{RECORD_SUFFIX}"))
        ends = _decoded(content, stamp)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return ends if ends.eod_id == eod_id else None


def write_ends(prefix: Path | str, ends: DocumentEnds, stamp: Stamp | None) -> bool:
    """Keep what was found of all documents of a shard.

    Args:
        prefix: The shard.
        ends: What was found.
        stamp: The shard's, from before its documents were looked at.

    Returns:
        Whether the record was written: not where a file changed since, or the folder is
        read-only. A record that says the same stays as it is.
    """
    if not ends.is_complete or stamp is None or stamp_of(str(prefix)) != stamp:
        return False
    if read_ends(str(prefix), stamp, ends.eod_id) == ends:
        return True
    content = {"format": _FORMAT, "contents": list(stamp.contents), **asdict(ends)}
    try:
        with replaced_file(Path(f"{prefix}{RECORD_SUFFIX}"), durable=False) as file:
            file.write(json.dumps(content).encode() + b"\n")
    except (OSError, OutputError):
        return False
    return True


def record_ends(prefix: Path, eod_id: int) -> None:
    """Look at all documents of a shard, and keep what is found, unless it is recorded already.

    Raises:
        ShardError: The shard cannot be read.
    """
    stamp = stamp_of(str(prefix))
    if stamp is None or read_ends(str(prefix), stamp, eod_id) is None:
        index = ShardIndex.open(prefix)
        write_ends(prefix, find_document_ends(index, eod_id, allowance=sys.maxsize), stamp)


def _content(path: str) -> bytes:
    with open_file(path) as file:
        return file.read(_MOST_BYTES)


def _decoded(content: Any, stamp: Stamp) -> DocumentEnds:
    fields = dict(cast("Mapping[str, Any]", content))
    if fields.pop("format") != _FORMAT or fields.pop("contents") != list(stamp.contents):
        raise ValueError("another format, or other files")
    if not all(type(value) is int and value >= 0 for value in fields.values()):
        raise ValueError("a field is no count")
    ends = DocumentEnds(**fields)
    if not max(ends.num_eod, ends.num_begin) <= ends.num_filled <= ends.num_checked:
        raise ValueError("its counts contradict each other")
    if not ends.is_complete:
        raise ValueError("not all documents were looked at")
    return ends

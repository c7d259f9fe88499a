"""The record of how a shard's documents end: ``PREFIX.ends.json``, beside its files.

It holds sizes and times of change of both files, and is believed only where they are still the
same. It can be deleted at any time: whoever needs it looks at the documents again.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from blendtitan.errors import OutputError, ShardError
from blendtitan.regular_files import read_file
from blendtitan.storage.document_ends import DocumentEnds, find_document_ends
from blendtitan.storage.json_files import DamagedFileError, parse_json
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.stamps import Stamp, stamp_of
from blendtitan.storage.writer import ENDS_SUFFIX, replaced_file

_FORMAT = 1
# A record has about 200 bytes. Whatever is much larger is something else.
_MOST_BYTES = 4096


def read_ends(prefix: str, stamp: Stamp, eod_id: int | None = None) -> DocumentEnds | None:
    """The recorded ends of a shard's documents, for this EOD or for any.

    None: there is no record, or it is of other files or of another EOD.
    """
    try:
        data = read_file(f"{prefix}{ENDS_SUFFIX}", most_bytes=_MOST_BYTES)
        ends = _decoded(cast("dict[str, Any]", parse_json(data, dict)), stamp)
    # Of fields that are missing or unknown, DocumentEnds makes a TypeError.
    except (OSError, DamagedFileError, TypeError):
        return None
    return ends if eod_id in (None, ends.eod_id) else None


def write_ends(prefix: Path | str, ends: DocumentEnds, stamp: Stamp | None) -> bool:
    """Record how the documents of a shard end.

    Args:
        prefix: The shard.
        ends: Counts of all its documents.
        stamp: The shard's, from before its documents were read.

    Returns:
        Whether the record is there. False where a file changed since, or the folder is read-only.
        A record that says the same stays as it is.
    """
    if not ends.is_complete or stamp is None or stamp_of(str(prefix)) != stamp:
        return False
    if read_ends(str(prefix), stamp, ends.eod_id) == ends:
        return True
    content = {"format": _FORMAT, "contents": stamp.contents, **asdict(ends)}
    try:
        with replaced_file(Path(f"{prefix}{ENDS_SUFFIX}"), durable=False) as file:
            file.write(json.dumps(content).encode() + b"\n")
    except (OSError, OutputError):
        return False
    return True


def record_ends(prefix: Path, eod_id: int) -> bool:
    """Read how the documents of a shard end, and record it, unless that is recorded already.

    Returns:
        Whether the record is there. False also where another process is replacing the shard.
    """
    stamp = stamp_of(str(prefix))
    if stamp is None:
        return False
    if read_ends(str(prefix), stamp, eod_id) is not None:
        return True
    try:
        ends = find_document_ends(ShardIndex.open(prefix), eod_id, allowance=sys.maxsize)
    except ShardError:
        return False
    return write_ends(prefix, ends, stamp)


def _decoded(content: dict[str, Any], stamp: Stamp) -> DocumentEnds:
    # By hand: a run does it for thousands of shards before its first step.
    if content.pop("format", None) != _FORMAT:
        raise DamagedFileError("is of another format")
    if content.pop("contents", None) != list(stamp.contents):
        raise DamagedFileError("is of other files")
    if not all(type(value) is int and value >= 0 for value in content.values()):
        raise DamagedFileError("holds a field that is no count")
    ends = DocumentEnds(**content)
    if not max(ends.num_eod, ends.num_begin) <= ends.num_filled <= ends.num_documents:
        raise DamagedFileError("holds counts that contradict each other")
    if not ends.is_complete:
        raise DamagedFileError("does not count all documents")
    return ends

"""How the documents of a shard begin and end: with EOD, or with another token.

All documents are looked at where that is cheap, else a sample spread over the shard. The answer
says how many were looked at, and a record beside the shard keeps a complete one.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import OutputError, ShardError
from blendtitan.files import DamagedFileError, parse_json, read_file
from blendtitan.storage.atomic_files import replaced_file
from blendtitan.storage.reader import FileSignature, OpenFile, ShardIndex, file_signature
from blendtitan.storage.records import ENDS_SUFFIX

IntArray = NDArray[np.int64]
_BLOCK_BYTES = 1 << 20
_BLOCK_DOCUMENTS = 1 << 16
_STRETCH_DOCUMENTS = 32
_RECORD_FORMAT = 1

# Tokens that lie closer together than this are read with what is between them: on a disk or a
# network, a read takes as long as reading this much more.
_FAR_BYTES = 1 << 14


# A document costs no more than this, however long it is, because what lies between its ends is
# not read.
_MOST_BYTES = 1 << 16


# So much is read at once, before it is looked for what could be left out.
_WHOLE_BYTES = 1 << 16


# The least and the most stretches of neighbouring documents in a sample, and documents in each.
_STRETCHES = 4, 256


@dataclass(frozen=True, slots=True)
class DocumentEnds:
    """What was found of the documents of one shard."""

    eod_id: int
    num_documents: int
    """Documents of the shard."""

    num_checked: int
    """Documents that were looked at."""

    num_filled: int
    """Those of them that have tokens. Others neither begin nor end."""

    num_eod: int
    """Those of them whose last token is EOD."""

    num_begin: int
    """Those of them whose first token is EOD."""

    @property
    def is_complete(self) -> bool:
        """Whether all documents were looked at."""
        return self.num_checked == self.num_documents

    @property
    def is_mixed(self) -> bool:
        """Whether some of the documents end in EOD and some do not."""
        return 0 < self.num_eod < self.num_filled

    @property
    def lacks_eod(self) -> bool:
        """Whether none ends in EOD."""
        return self.num_eod == 0

    @property
    def begins_with_eod(self) -> bool:
        """Whether all begin with EOD, as where BOS and EOD are one token."""
        return self.num_begin == self.num_filled > 0

    def described(self) -> str:
        """How many end in EOD, of how many that were looked at."""
        found = f"{self.num_eod:,} of {self.num_filled:,} documents"
        if not self.is_complete:
            found += f" looked at ({self.num_documents:,} in all)"
        return f"{found} end in EOD ({self.eod_id})"


def joined_ends(found: Sequence[DocumentEnds]) -> DocumentEnds | None:
    """The sum for shards that become one. None: they were looked at for different tokens."""
    if len({ends.eod_id for ends in found}) != 1:
        return None
    return DocumentEnds(
        eod_id=found[0].eod_id,
        num_documents=sum(ends.num_documents for ends in found),
        num_checked=sum(ends.num_checked for ends in found),
        num_filled=sum(ends.num_filled for ends in found),
        num_eod=sum(ends.num_eod for ends in found),
        num_begin=sum(ends.num_begin for ends in found),
    )


def find_document_ends(index: ShardIndex, eod_id: int, *, allowance: int) -> DocumentEnds:
    """Look at all documents of a shard, or at a sample of them.

    Args:
        index: The shard's ``.idx``.
        eod_id: The token in question.
        allowance: Bytes that may be read, or what takes as long. A small sample is always taken.

    Raises:
        ShardError: The shard cannot be read, or an entry of its ``.idx`` cannot be right.
    """
    file = OpenFile.open(f"{index.prefix}.bin")
    checked = filled = num_eod = num_begin = 0
    for starts in _document_starts(index, allowance):
        places = np.empty((starts.size - len(starts), 2), np.int64)
        places[:, 0] = starts[:, :-1].ravel()
        places[:, 1] = starts[:, 1:].ravel()
        places[:, 1] -= 1
        checked += len(places)
        is_filled = places[:, 1] >= places[:, 0]
        if not is_filled.all():
            places = places[is_filled]
        is_eod = _tokens_at(file, index.dtype, places.ravel()) == eod_id
        filled += len(places)
        num_begin += int(np.count_nonzero(is_eod[::2]))
        num_eod += int(np.count_nonzero(is_eod[1::2]))
    return DocumentEnds(eod_id, index.num_documents, checked, filled, num_eod, num_begin)


def _document_starts(index: ShardIndex, allowance: int) -> Iterator[IntArray]:
    """Where documents start that are looked at, in stretches of neighbours.

    Each array has one row for each stretch: the starts of its documents, and the end of the last.
    """
    total = index.num_documents
    mean_bytes = index.num_tokens * index.dtype.itemsize / total
    least, most = _STRETCHES
    count = min(max(allowance // (4 * _MOST_BYTES), least), most)
    stretch_bytes = min(allowance / count, _MOST_BYTES)
    length = min(max(int(stretch_bytes / mean_bytes), 1), _STRETCH_DOCUMENTS)
    if total * min(mean_bytes, _MOST_BYTES) <= allowance or total <= count * length:
        for first in range(0, total, _BLOCK_DOCUMENTS):
            last = min(first + _BLOCK_DOCUMENTS, total)
            yield index.document_starts(first, last)[None]
        return
    # Both ends of the shard are part of the sample.
    firsts = [(total - length) * i // (count - 1) for i in range(count)]
    yield index.starts_of_stretches(firsts, length)


def _tokens_at(file: OpenFile, dtype: np.dtype[Any], places: IntArray) -> NDArray[np.integer]:
    """The tokens at places of a ``.bin``, which never fall, in few reads of bounded size."""
    if not len(places):
        return np.empty(0, dtype)
    low, stop = int(places[0]), int(places[-1]) + 1
    if (stop - low) * dtype.itemsize <= _WHOLE_BYTES:
        return _read(file, dtype, low, stop)[places - low]
    far, block = _FAR_BYTES // dtype.itemsize, _BLOCK_BYTES // dtype.itemsize
    number = places // block
    is_apart = (places[1:] - places[:-1] > far) | (number[1:] != number[:-1])
    cuts = (is_apart.nonzero()[0] + 1).tolist()
    tokens = np.empty(len(places), dtype)
    for first, last in pairwise([0, *cuts, len(places)]):
        here = places[first:last]
        low = int(here[0])
        tokens[first:last] = _read(file, dtype, low, int(here[-1]) + 1)[here - low]
    return tokens


def _read(file: OpenFile, dtype: np.dtype[Any], start: int, stop: int) -> NDArray[np.integer]:
    tokens = np.empty(stop - start, dtype)
    file.read_into(tokens, at=start * dtype.itemsize)
    return tokens


# A record has about 200 bytes. Whatever is much larger is something else.
_MOST_RECORD_BYTES = 4096


def read_ends(prefix: str, stamp: FileSignature, eod_id: int | None = None) -> DocumentEnds | None:
    """The recorded ends of a shard's documents, for this EOD or for any.

    None: there is no record, or it is of other files or of another EOD.
    """
    try:
        data = read_file(f"{prefix}{ENDS_SUFFIX}", most_bytes=_MOST_RECORD_BYTES)
        ends = _decoded_ends(cast("dict[str, Any]", parse_json(data, dict)), stamp)
    # Of fields that are missing or unknown, DocumentEnds makes a TypeError.
    except (OSError, DamagedFileError, TypeError):
        return None
    return ends if eod_id in (None, ends.eod_id) else None


def write_ends(prefix: Path | str, ends: DocumentEnds, stamp: FileSignature | None) -> bool:
    """Record how the documents of a shard end.

    Args:
        prefix: The shard.
        ends: Counts of all its documents.
        stamp: The shard's, from before its documents were read.

    Returns:
        Whether the record is there. False where a file changed since, or the folder is read-only.
        A record that says the same stays as it is.
    """
    if not ends.is_complete or stamp is None or file_signature(str(prefix)) != stamp:
        return False
    if read_ends(str(prefix), stamp, ends.eod_id) == ends:
        return True
    content = {"format": _RECORD_FORMAT, "contents": stamp.contents, **asdict(ends)}
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
    stamp = file_signature(str(prefix))
    if stamp is None:
        return False
    if read_ends(str(prefix), stamp, eod_id) is not None:
        return True
    try:
        ends = find_document_ends(ShardIndex.open(prefix), eod_id, allowance=sys.maxsize)
    except ShardError:
        return False
    return write_ends(prefix, ends, stamp)


def _decoded_ends(content: dict[str, Any], stamp: FileSignature) -> DocumentEnds:
    # By hand: a run does it for thousands of shards before its first step.
    if content.pop("format", None) != _RECORD_FORMAT:
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

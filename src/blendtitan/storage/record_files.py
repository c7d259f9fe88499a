"""Records beside shards that the tools write: tokenizers, document ends, catalogs of folders.

``PREFIX.tokenizer.json`` names the tokenizer that made a shard. It also names the number of
documents and tokens of the shard, so that it is ignored once another program has replaced it.
"""

import errno
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from blendtitan.errors import CorruptShardError, MissingShardError, OutputError, ShardError
from blendtitan.files import DamagedFileError, decode_json, read_file, with_retries
from blendtitan.identity import TokenizerIdentity
from blendtitan.retries import RETRIES
from blendtitan.storage.atomic_files import replaced_file, write_atomically
from blendtitan.storage.ends import find_document_ends
from blendtitan.storage.reader import FileSignature, ShardIndex, file_signature
from blendtitan.storage.records import (
    CATALOG_FILE,
    CHECKSUM,
    ENDS_SUFFIX,
    RECORD_SUFFIX,
    CatalogEntry,
    Count,
    DocumentEnds,
    read_ends,
)

# A record has about 250 bytes. A much larger file is not a record.
_MOST_RECORD_BYTES = 16_384
_LONGEST_NAME = 200
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_NAME)]


@dataclass(frozen=True, slots=True)
class TokenizerRecord:
    """The tokenizer that made a shard, and the size of that shard."""

    tokenizer: TokenizerIdentity
    documents: int
    tokens: int

    def describes(self, *, documents: int, tokens: int) -> bool:
        """Whether the record was written for a shard of this size."""
        return (self.documents, self.tokens) == (documents, tokens)


class _StoredRecord(msgspec.Struct):
    format: Literal[1]
    kind: _Text
    name: _Text
    hash: _Text
    vocab_size: Count
    eod_id: Count | None
    documents: Count
    tokens: Count


def record_path(prefix: Path | str) -> Path:
    """Path of the record of a shard's tokenizer."""
    return Path(f"{prefix}{RECORD_SUFFIX}")


def encode_record(record: TokenizerRecord) -> bytes:
    """The content of a record's file."""
    tokenizer = record.tokenizer
    stored = _StoredRecord(
        format=1,
        kind=tokenizer.kind,
        name=tokenizer.name[-_LONGEST_NAME:],
        hash=tokenizer.hash,
        vocab_size=tokenizer.vocab_size,
        eod_id=tokenizer.eod_id,
        documents=record.documents,
        tokens=record.tokens,
    )
    return json.dumps(msgspec.structs.asdict(stored)).encode() + b"\n"


def read_record(prefix: Path | str) -> TokenizerRecord | None:
    """The record beside a shard, or None.

    Raises:
        CorruptShardError: The file is not a record.
        MissingShardError: The file cannot be read.
    """
    path = f"{prefix}{RECORD_SUFFIX}"
    try:
        data = with_retries(lambda: read_file(path, most_bytes=_MOST_RECORD_BYTES), path=path)
        found = decode_json(data, _StoredRecord)
    except FileNotFoundError:
        return None
    except DamagedFileError as error:
        raise _not_a_record(path, error) from error
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.EINVAL, errno.EFBIG):
            raise _not_a_record(path, error.strerror) from error
        raise MissingShardError(
            f"{path}: cannot be read ({RETRIES.described(error)}). Make it readable, or delete it: "
            f"the shard's tokens are then compared with the tokenizer instead."
        ) from error
    identity = TokenizerIdentity(
        hash=found.hash,
        name=found.name,
        kind=found.kind,
        vocab_size=found.vocab_size,
        eod_id=found.eod_id,
    )
    return TokenizerRecord(identity, found.documents, found.tokens)


def _not_a_record(path: str, reason: object) -> CorruptShardError:
    return CorruptShardError(
        f"{path}: expected the record of the tokenizer that made the shard, in format 1 "
        f"({reason}). Copy it again with the shard, or delete it: the shard's tokens are then "
        f"compared with the tokenizer instead."
    )


def write_folder_catalog(folder: Path, entries: Mapping[str, CatalogEntry]) -> None:
    """Write the catalog of a folder, by prefix in it, unless the file has the same content."""
    shards = {name: msgspec.structs.asdict(entry) for name, entry in sorted(entries.items())}
    content = {"format": 1, "checksum": CHECKSUM, "shards": shards}
    data = json.dumps(content, indent=1).encode()
    path = folder / CATALOG_FILE
    found = None
    # An unreadable file cannot be replaced either, and that error names it.
    with suppress(OSError):
        found = read_file(path)
    if found != data:
        write_atomically(path, data)


def joined_ends(found: Sequence[DocumentEnds]) -> DocumentEnds | None:
    """The record of joined shards. None: their records are about different tokens."""
    if len({ends.eod_id for ends in found}) != 1:
        return None
    rows = [msgspec.structs.astuple(ends) for ends in found]
    return DocumentEnds(found[0].eod_id, *map(sum, list(zip(*rows, strict=True))[1:]))


def write_ends(prefix: Path | str, ends: DocumentEnds, signature: FileSignature | None) -> bool:
    """Record the ends of all documents of a shard; return whether the record exists.

    It does not if a file changed since ``signature``, taken before reading the documents, or if
    the folder is read-only. A record with the same content is not written again.
    """
    if not ends.is_complete or signature is None or file_signature(str(prefix)) != signature:
        return False
    if read_ends(str(prefix), signature, ends.eod_id) == ends:
        return True
    counts = msgspec.structs.asdict(ends)
    content = {"format": 1, "contents": signature.contents, **counts}
    try:
        with replaced_file(Path(f"{prefix}{ENDS_SUFFIX}"), durable=False) as file:
            file.write(json.dumps(content).encode() + b"\n")
    except (OSError, OutputError):
        return False
    return True


def record_ends(prefix: Path, eod_id: int) -> bool:
    """Read and record the ends of a shard's documents, unless they are recorded already.

    Return whether the record exists; it does not if another process is replacing the shard.
    """
    signature = file_signature(str(prefix))
    if signature is None:
        return False
    if read_ends(str(prefix), signature, eod_id) is not None:
        return True
    try:
        ends = find_document_ends(ShardIndex.open(prefix), eod_id, allowance=sys.maxsize)
    except ShardError:
        return False
    return write_ends(prefix, ends, signature)

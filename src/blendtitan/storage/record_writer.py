"""Writing the records beside shards, and the catalog of a folder.

Training only reads them.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from blendtitan.errors import OutputError, ShardError
from blendtitan.files import read_file, url_of
from blendtitan.storage.atomic_files import replaced_file, write_atomically
from blendtitan.storage.ends import find_document_ends
from blendtitan.storage.reader import FileSignature, ShardIndex, file_signature
from blendtitan.storage.record_files import LONGEST_NAME, StoredRecord, TokenizerRecord
from blendtitan.storage.records import (
    CATALOG_FILE,
    CHECKSUM,
    ENDS_SUFFIX,
    CatalogEntry,
    DocumentEnds,
    read_ends,
)


def encode_record(record: TokenizerRecord) -> bytes:
    """The content of a record's file."""
    tokenizer = record.tokenizer
    stored = StoredRecord(
        format=1,
        kind=tokenizer.kind,
        name=tokenizer.name[-LONGEST_NAME:],
        hash=tokenizer.hash,
        vocab_size=tokenizer.vocab_size,
        eod_id=tokenizer.eod_id,
        documents=record.documents,
        tokens=record.tokens,
    )
    return json.dumps(msgspec.structs.asdict(stored)).encode() + b"\n"


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
    if found == data:
        return
    if url := url_of(path):
        from blendtitan.storage.remote_writes import upload

        upload(url, data)
    else:
        write_atomically(path, data)


def joined_ends(found: Sequence[DocumentEnds]) -> DocumentEnds | None:
    """The record of joined shards. None: their records are about different tokens."""
    if len({ends.eod_id for ends in found}) != 1:
        return None
    rows = [msgspec.structs.astuple(ends) for ends in found]
    return DocumentEnds(found[0].eod_id, *map(sum, list(zip(*rows, strict=True))[1:]))


def encode_ends(ends: DocumentEnds, signature: FileSignature) -> bytes:
    """The content of the record of a shard's document ends."""
    counts = msgspec.structs.asdict(ends)
    content = {"format": 1, "contents": signature.contents, **counts}
    return json.dumps(content).encode() + b"\n"


def write_ends(prefix: Path | str, ends: DocumentEnds, signature: FileSignature | None) -> bool:
    """Record the ends of all documents of a shard; return whether the record exists.

    It does not if a file changed since ``signature``, taken before reading the documents, or if
    the folder is read-only, or in object storage. A record with the same content is not written
    again.
    """
    if not ends.is_complete or signature is None or file_signature(str(prefix)) != signature:
        return False
    if read_ends(str(prefix), signature, ends.eod_id) == ends:
        return True
    if url_of(prefix):
        return False
    try:
        with replaced_file(Path(f"{prefix}{ENDS_SUFFIX}"), durable=False) as file:
            file.write(encode_ends(ends, signature))
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

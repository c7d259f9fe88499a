"""Errors for unusable shards, with the remedy."""

import errno
import os
import struct

import numpy as np

from blendtitan.errors import CorruptShardError, MixedEodError, UncountedEodError
from blendtitan.files import path_of
from blendtitan.storage.index_format import (
    DTYPE_CODES,
    HEADER,
    MAGIC,
    OLD_MAGIC,
    VERSION,
    IndexHeader,
)
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.records import DocumentEnds
from blendtitan.visible import counted


def size_fault(index: ShardIndex, bin_bytes: int) -> CorruptShardError:
    """The error for an ``.idx`` whose ends do not fit the size of its ``.bin``."""
    header, path, bin_path = index.header, index.file.path, f"{index.prefix}.bin"
    token_bytes, num_sequences = header.dtype.itemsize, header.num_sequences
    if header.num_documents == 0 or num_sequences == 0 or bin_bytes == 0:
        return _nothing_fault(index, bin_bytes)
    last_len = struct.unpack("<i", index.read(4, at=header.pointers_at - 4))[0]
    last_pointer = index.entry(header.pointers_at, num_sequences - 1)
    expected = last_pointer + last_len * token_bytes
    if bin_bytes != expected and _lacks_one_token_each(index, bin_bytes - expected):
        return UncountedEodError(
            f"{path}: its lengths sum to {expected:,} bytes, but {os.path.basename(bin_path)} has "
            f"{bin_bytes:,}: one token more for each of "
            f"{(bin_bytes - expected) // token_bytes:,} documents. The EODs were appended without "
            f"being counted, so every document boundary is off. To count them: "
            f"blendtitan repair {index.prefix} --eod-id ID"
        )
    if bin_bytes != expected or last_len < 0 or bin_bytes % token_bytes:
        return CorruptShardError(
            f"{bin_path}: found {counted(bin_bytes, 'byte')}, expected {expected:,} (the last "
            f"sequence of {os.path.basename(path)} has {counted(last_len, 'token')} of "
            f"{token_bytes} bytes from byte {last_pointer:,} on). The copy "
            f"is incomplete, or the files are not a pair: copy both again, or tokenise the shard "
            f"again."
        )
    documents_at = header.documents_at
    found = (
        index.entry(header.pointers_at, 0),
        index.entry(documents_at, 0),
        index.entry(documents_at, header.num_documents),
    )
    return CorruptShardError(
        f"{path}: the first pointer and the ends of the document index are {found}, expected "
        f"{(0, 0, num_sequences)}. Copy both files again, or tokenise the shard again."
    )


def has_header(index: ShardIndex, first_pointer: int, bin_bytes: int) -> bool:
    """Whether the first sequence may start behind a header: its length must confirm it."""
    header, token_bytes = index.header, index.dtype.itemsize
    first_len = int.from_bytes(index.read(4, at=HEADER.size), "little")
    end = index.entry(header.pointers_at, 1) if header.num_sequences > 1 else bin_bytes
    is_aligned = first_pointer > 0 and first_pointer % token_bytes == 0
    return is_aligned and first_pointer + first_len * token_bytes == end


def missing_file_advice(path: str, error: OSError) -> str:
    """The remedy for a file of a shard that cannot be opened."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "Lower max_open_shards, or raise the limit of open files (ulimit -n)."
    if error.errno in (errno.EACCES, errno.EPERM):
        return "Check the permissions of the file and of its folders."
    stem, suffix = path[:-4], path[-4:]
    if stem.endswith((".bin", ".idx")):
        return f"Name the shard without {stem[-4:]}."
    other = f"{stem}{'.bin' if suffix == '.idx' else '.idx'}"
    if path_of(other).exists():
        name = os.path.basename(other)
        return f"{name} exists, so the copy is incomplete: copy both files again."
    return "Check the path in the file list; relative paths start at the list's folder."


def mixed_error(prefix: str, ends: DocumentEnds) -> MixedEodError:
    """The error for a shard in which some documents end in EOD and others do not."""
    more = "" if ends.is_complete else " `blendtitan verify` counts them all."
    return MixedEodError(
        f"{prefix}: {ends.described()}, expected all or none.{more} Tokenise the shard again, or "
        f"set append_eod = false to insert no EOD."
    )


def _nothing_fault(index: ShardIndex, bin_bytes: int) -> CorruptShardError:
    header, path = index.header, index.file.path
    bin_name = os.path.basename(f"{index.prefix}.bin")
    sequences = counted(header.num_sequences, "sequence")
    held = f"{sequences}, and {bin_name} has {counted(bin_bytes, 'byte')}"
    if header.num_documents == 0 and header.num_sequences > 0 and bin_bytes > 0:
        return CorruptShardError(
            f"{path}: the document index has no document, but there are {held}. A program that "
            f"merged shards lost the document index; the tokens are still there. If each sequence "
            f"is one document that ends in EOD, its index can be restored: "
            f"blendtitan repair {index.prefix} --eod-id ID. Otherwise merge the original shards "
            f"again, with blendtitan merge."
        )
    if bin_bytes == 0 and not _has_length(index):
        return CorruptShardError(
            f"{path}: the shard is empty ({counted(header.num_documents, 'document')}, "
            f"{sequences}, 0 bytes in {bin_name}). Delete it, or its line in the file list."
        )
    return CorruptShardError(
        f"{path}: describes {counted(header.num_documents, 'document')} in {held}. The two files "
        f"are not a pair, or the copy is incomplete: copy both again, or tokenise the shard again."
    )


def _has_length(index: ShardIndex) -> bool:
    """Whether the last sequence has a token, to distinguish an empty shard from a lost file."""
    header = index.header
    if header.num_sequences == 0:
        return False
    last_len = struct.unpack("<i", index.read(4, at=header.pointers_at - 4))[0]
    return bool(last_len or index.entry(header.pointers_at, header.num_sequences - 1))


def _lacks_one_token_each(index: ShardIndex, missing_bytes: int) -> bool:
    """Whether so many bytes are one token for each document that has a sequence."""
    missing, remainder = divmod(missing_bytes, index.dtype.itemsize)
    if remainder or not 0 < missing <= index.num_documents:
        return False
    # Megatron-LM appends no EOD to an empty text, which is a document of no sequence.
    return missing == index.num_documents or missing == _num_with_sequences(index)


def _num_with_sequences(index: ShardIndex) -> int:
    entries = index.entries(index.header.documents_at, 0, index.num_documents + 1)
    return int(np.count_nonzero(entries[1:] != entries[:-1]))


def header_fault(header: bytes, *, file_bytes: int, path: str) -> CorruptShardError:
    """The error for an ``.idx`` with an unusable header, in the form of ``decode_header``."""
    return CorruptShardError(f"{path}: {_header_fault(header, file_bytes, path)}")


def _header_fault(header: bytes, file_bytes: int, path: str) -> str:
    if len(header) < HEADER.size:
        return (
            f"found {counted(file_bytes, 'byte')}, expected a header of {HEADER.size}. The copy is "
            f"incomplete: copy the file again, or tokenise the shard again."
        )
    magic, version, code, num_sequences, num_documents_1 = HEADER.unpack(header)
    convert = f"blendtitan convert {path.removesuffix('.idx')} --output DIR"
    if magic.startswith(OLD_MAGIC):
        return (
            f"this is a TNTIDX file, the older format of fairseq and of gpt-neox's lazy and cached "
            f"data, expected Megatron's MMIDIDX. Convert it without tokenising again: {convert}"
        )
    if magic != MAGIC:
        return (
            f"starts with {magic!r}, expected {MAGIC!r}. This is not a Megatron .idx file; name "
            f"the prefix of a .bin/.idx pair."
        )
    if version != VERSION:
        return f"format version is {version}, expected {VERSION}. Tokenise the shard again."
    dtype = DTYPE_CODES.get(code)
    if dtype is None or dtype.kind not in "iu":
        found = "unknown" if dtype is None else dtype.name
        return (
            f"dtype code is {code} ({found}), expected an integer type: "
            f"{', '.join(f'{c} {d.name}' for c, d in DTYPE_CODES.items() if d.kind in 'iu')}. "
            f"Tokenise the shard again."
        )
    if num_documents_1 < 1:
        return "the document index has 0 entries, expected at least 1. Tokenise the shard again."
    expected = IndexHeader(dtype, num_sequences, num_documents_1 - 1).file_bytes
    if num_sequences > 0 and file_bytes == expected + num_sequences:
        return (
            f"found one more byte for each of its {num_sequences:,} sequences: the modes of "
            f"Megatron's multimodal shards, which hold more than text. If all modes are 0 (text), "
            f"{convert} writes the shard without them."
        )
    return (
        f"found {counted(file_bytes, 'byte')}, expected {expected:,} "
        f"({counted(num_sequences, 'sequence')}, {counted(num_documents_1 - 1, 'document')}, from "
        f"its header). The copy is incomplete: copy both files again, or tokenise again."
    )

"""Records beside shards that the tools write: tokenizers, document ends, catalogs of folders.

``PREFIX.tokenizer.json`` names the tokenizer that made a shard. It also names the number of
documents and tokens of the shard, so that it is ignored once another program has replaced it.
"""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from blendtitan.errors import CorruptShardError, MissingShardError
from blendtitan.files import DamagedFileError, decode_json, path_of, read_file, with_retries
from blendtitan.identity import TokenizerIdentity
from blendtitan.retries import RETRIES
from blendtitan.storage.records import (
    RECORD_SUFFIX,
    Count,
)

# A record has about 250 bytes. A much larger file is not a record.
_MOST_RECORD_BYTES = 16_384
LONGEST_NAME = 200
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]


@dataclass(frozen=True, slots=True)
class TokenizerRecord:
    """The tokenizer that made a shard, and the size of that shard."""

    tokenizer: TokenizerIdentity
    documents: int
    tokens: int

    def describes(self, *, documents: int, tokens: int) -> bool:
        """Whether the record was written for a shard of this size."""
        return (self.documents, self.tokens) == (documents, tokens)


class StoredRecord(msgspec.Struct):
    """The content of a record's file."""

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
    return path_of(f"{prefix}{RECORD_SUFFIX}")


def read_record(prefix: Path | str) -> TokenizerRecord | None:
    """The record beside a shard, or None.

    Raises:
        CorruptShardError: The file is not a record.
        MissingShardError: The file cannot be read.
    """
    path = f"{prefix}{RECORD_SUFFIX}"
    try:
        data = with_retries(lambda: read_file(path, most_bytes=_MOST_RECORD_BYTES), path=path)
        found = decode_json(data, StoredRecord)
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

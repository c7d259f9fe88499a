"""The record of the tokenizer that made a shard: ``PREFIX.tokenizer.json``, beside its files.

A record names the number of documents and tokens of its shard. Where another program puts another
shard in the place of ours, the record that stays behind does not describe it, and is not believed.
"""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from blendtitan.errors import CorruptShardError, MissingShardError
from blendtitan.identity import TokenizerIdentity
from blendtitan.storage.json_files import DamagedFileError, parse_json
from blendtitan.storage.retries import RETRIES

RECORD_SUFFIX = ".tokenizer.json"
"""What the name of a record has after the prefix of the shard."""

_FORMAT = 1
# A record has about 250 bytes. Whatever is much larger is something else.
_MOST_BYTES = 16_384
_LONGEST_NAME = 200
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not be waited for


@dataclass(frozen=True, slots=True)
class TokenizerRecord:
    """Which tokenizer made a shard, and which shard that is."""

    tokenizer: TokenizerIdentity
    documents: int
    tokens: int

    def describes(self, *, documents: int, tokens: int) -> bool:
        """Whether a shard of this size is the one that the record was written for."""
        return (self.documents, self.tokens) == (documents, tokens)


def record_path(prefix: Path | str) -> Path:
    """Where the record of a shard lies."""
    return Path(f"{prefix}{RECORD_SUFFIX}")


def encode_record(record: TokenizerRecord) -> bytes:
    """The content of a record's file."""
    tokenizer = record.tokenizer
    content = {
        "format": _FORMAT,
        "kind": tokenizer.kind,
        "name": tokenizer.name[-_LONGEST_NAME:],
        "hash": tokenizer.hash,
        "vocab_size": tokenizer.vocab_size,
        "eod_id": tokenizer.eod_id,
        "documents": record.documents,
        "tokens": record.tokens,
    }
    return json.dumps(content).encode() + b"\n"


def read_record(prefix: Path | str) -> TokenizerRecord | None:
    """The record beside a shard. None: there is none.

    Raises:
        CorruptShardError: The file is not a record.
        MissingShardError: The file cannot be read.
    """
    path = f"{prefix}{RECORD_SUFFIX}"
    try:
        data = RETRIES.tried(lambda: _content(path), path=path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MissingShardError(
            f"{path}: cannot be read ({RETRIES.described(error)}). Make it readable, or delete it: "
            f"the shard's tokens are then compared with the tokenizer instead."
        ) from error
    try:
        return _decoded(cast("dict[str, Any]", parse_json(data, dict)))
    except DamagedFileError as error:
        raise CorruptShardError(_not_a_record(path, f"it {error}")) from error


def _content(path: str) -> bytes:
    fd = os.open(path, _OPEN_FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CorruptShardError(_not_a_record(path, "not a regular file"))
        data = os.read(fd, _MOST_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _MOST_BYTES:
        raise CorruptShardError(_not_a_record(path, f"more than {_MOST_BYTES:,} bytes"))
    return data


def _not_a_record(path: str, reason: str) -> str:
    return (
        f"{path}: expected the record of the tokenizer that made the shard, in format {_FORMAT} "
        f"({reason}). Copy it again with the shard, or delete it: the shard's tokens are then "
        f"compared with the tokenizer instead."
    )


def _decoded(content: Mapping[str, Any]) -> TokenizerRecord:
    if _count(content, "format") != _FORMAT:
        raise DamagedFileError(f"is of format {content['format']}")
    eod_id = _value(content, "eod_id")
    return TokenizerRecord(
        TokenizerIdentity(
            hash=_text(content, "hash"),
            name=_text(content, "name"),
            kind=_text(content, "kind"),
            vocab_size=_count(content, "vocab_size"),
            eod_id=None if eod_id is None else _count(content, "eod_id"),
        ),
        documents=_count(content, "documents"),
        tokens=_count(content, "tokens"),
    )


def _value(content: Mapping[str, Any], key: str) -> Any:
    if key not in content:
        raise DamagedFileError(f"has no {key}")
    return content[key]


def _text(content: Mapping[str, Any], key: str) -> str:
    value = _value(content, key)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME:
        raise DamagedFileError(f"has a {key} that is no text of up to {_LONGEST_NAME} characters")
    return value


def _count(content: Mapping[str, Any], key: str) -> int:
    value = _value(content, key)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise DamagedFileError(f"has a {key} that is no whole number from 0 on")
    return value

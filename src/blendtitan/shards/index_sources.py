"""Token files of other programs: their format, token type, and where their tokens begin.

Each is found by its content or its name, and holds tokens end to end, so that an ``.idx`` suffices
to read it:

- NumPy's ``.npy``, with its header, in any number of dimensions.
- OLMo's and dolma's ``.npy``: tokens without a header, written through ``numpy.memmap``.
- datatrove's and nanotron's ``.ds``. ``FILE.ds.metadata`` names the bytes of a token and the number
  of tokens; ``FILE.ds.index`` holds the end of each document, in tokens, as uint64.
- llm.c's ``.bin``: 256 int32 come first, of which three are used: a magic number, the version, and
  the number of tokens. Version 1 holds uint16, version 7 (Llama 3) uint32.
- Any other ``.bin``: tokens without a header, such as nanoGPT's ``train.bin``.

Ids of type uint32 and uint64 are read as int32 and int64, because shards have no unsigned type of
these sizes. Every id below 2^31 (2^63) has the same bytes in both.

Source: ``memmap_writer.py`` of dolma, ``pipeline/tokens/tokenizer.py`` of datatrove,
``dev/data/data_common.py`` of llm.c.
"""

import math
import os
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, CorruptShardError
from blendtitan.files import open_file, read_text
from blendtitan.storage.reader import OpenFile
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

SUFFIXES = (".npy", ".ds", ".bin")
"""Names of token files. A link that ends in the last one may lead to a file with another."""

SOURCE_SUFFIXES = (".csv.gz", ".docs.parquet")
"""Names of files beside them that name the source of each document."""

DTYPES = {
    "uint8": "<u1",
    "uint16": "<u2",
    "int16": "<i2",
    "uint32": "<i4",
    "int32": "<i4",
    "uint64": "<i8",
    "int64": "<i8",
}
"""The token types that a file may have, and the type as which its ids are read."""

_NUMPY_MAGIC = b"\x93NUMPY"
_LLMC_HEADER_BYTES = 1024
_LLMC_MAGIC = struct.Struct("<3i")
_LLMC_TOKENS = {(20240520, 1): "<u2", (20240801, 7): "<i4"}
_LLMC_EVALUATION = 20240522
_AGAIN = "Copy the file again."
_MOST_METADATA_BYTES = 1 << 16


class FoundFile(NamedTuple):
    """A token file, and the name of its shard, relative to the output."""

    path: Path
    name: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenFile:
    """A token file whose header and size were checked."""

    path: Path
    description: str
    dtype: np.dtype[Any]
    num_tokens: int
    header_bytes: int = 0
    ends_path: Path | None = None
    """The file that holds the end of each document. None: the tokens tell."""

    names_type: bool = False
    """Whether the file itself names its token type."""

    @property
    def num_bytes(self) -> int:
        """Size of the tokens."""
        return self.num_tokens * self.dtype.itemsize

    @property
    def start(self) -> int:
        """Where the tokens begin, in tokens from the start of the file."""
        return self.header_bytes // self.dtype.itemsize

    def document_lens(self) -> NDArray[np.int64] | None:
        """Tokens of each document, by the file that lists their ends. None: there is no such file.

        Raises:
            CorruptShardError: The ends do not grow up to the number of tokens.
        """
        if self.ends_path is None:
            return None
        file = OpenFile.open(str(self.ends_path))
        ends = np.empty(file.num_bytes // 8, np.dtype("<i8"))
        file.read_into(ends, at=0)
        lens = np.diff(ends, prepend=0)
        last = int(ends[-1]) if len(ends) else 0
        if file.num_bytes % 8 or (lens < 0).any() or last != self.num_tokens:
            raise CorruptShardError(
                f"{self.ends_path}: lists documents up to token {last:,}, expected growing ends up "
                f"to {self.num_tokens:,}, the number of tokens in {self.path.name}. Copy both "
                f"files again, or move this one away and give --eod-id, to find documents by it."
            )
        return lens


def find_token_files(inputs: Sequence[Path]) -> list[FoundFile]:
    """Token files named by paths or found in folders, in the order of their names.

    Raises:
        ConfigError: There is none, or two of them would have one name.
    """
    found = [file for path in inputs for file in _files_of(path)]
    if not found:
        raise ConfigError(
            f"{', '.join(map(str, inputs))}: found no token file, expected files that end in "
            f"{', '.join(SUFFIXES)}"
        )
    paths: dict[Path, Path] = {}
    for path, name in found:
        first = paths.setdefault(name, path)
        if first != path:
            raise ConfigError(
                f"{path} and {first} would both become the shard {name}. Index them into different "
                f"folders."
            )
    return [FoundFile(path, name) for name, path in paths.items()]


def recognise(path: Path, dtype: str | None) -> TokenFile:
    """The format of a token file; its header and its size are checked.

    Args:
        path: The file.
        dtype: One of ``DTYPES``, needed for files that do not name their token type.

    Raises:
        ConfigError: The token type is needed.
        ShardError: The file is empty, cut short, or of another kind.
    """
    with open_file(path) as file:
        num_bytes, head = os.fstat(file.fileno()).st_size, file.read(_LLMC_HEADER_BYTES)
    if num_bytes == 0:
        raise CorruptShardError(f"{path}: is empty, expected tokens. Leave it out of the inputs.")
    if head.startswith(_NUMPY_MAGIC):
        return _of_numpy(path, num_bytes)
    if path.suffix == ".bin" and len(head) >= _LLMC_MAGIC.size and _is_llmc(head):
        return _of_llmc(path, head, num_bytes)
    if path.suffix == ".ds":
        return _of_datatrove(path, num_bytes, dtype)
    return _raw(path, num_bytes, dtype, "tokens without header")


def _files_of(path: Path) -> Iterator[FoundFile]:
    if not path.is_dir():
        if path.suffix not in SUFFIXES:
            raise ConfigError(
                f"{path}: expected a token file that ends in {', '.join(SUFFIXES)}, or a folder of "
                f"such files. Only files that store tokens contiguously can be used in place."
            )
        yield FoundFile(path, Path(path.stem))
        return
    others: Counter[str] = Counter()
    found: list[Path] = []
    for file in sorted(path.rglob("*")):
        if file.is_dir() or any(part.startswith(".") for part in file.relative_to(path).parts):
            continue
        if file.suffix in SUFFIXES:
            found.append(file)
        elif not file.name.endswith(SOURCE_SUFFIXES):
            others[file.suffix or file.name] += 1
    _log_others(path, others)
    names = Counter(map(os.path.realpath, found))
    for file in found:
        is_second = names[os.path.realpath(file)] > 1 and _is_link_of_shard(file)
        if not is_second:
            name = file.relative_to(path)
            yield FoundFile(file, name.with_name(file.stem))


def _log_others(path: Path, others: Counter[str]) -> None:
    if others:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in others.most_common(5))
        more = "" if len(others) <= 5 else " and others"
        logger.info("%s: skipped files that hold no tokens: %s%s", path, kinds, more)


def _is_link_of_shard(path: Path) -> bool:
    """Whether an earlier call made this link, beside the tokens or below their folder.

    A call that was killed may have left no ``.idx``.
    """
    if path.suffix != ".bin" or not path.is_symlink():
        return False
    return path.with_suffix(".idx").exists() or path.resolve().suffix != ".bin"


def _of_numpy(path: Path, num_bytes: int) -> TokenFile:
    try:
        with open_file(path) as file:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, is_fortran, dtype = read(file)
            header_bytes = file.tell()
    except (ValueError, KeyError, EOFError) as error:
        raise CorruptShardError(
            f"{path}: begins like NumPy's format, but its header cannot be read ({error}). {_AGAIN}"
        ) from error
    if dtype.name not in DTYPES or (dtype.byteorder == ">" and dtype.itemsize > 1):
        raise CorruptShardError(
            f"{path}: holds an array of type {dtype.str}, expected little-endian integers. Save "
            f'the array again, with array.astype("<i4") or another integer type.'
        )
    if is_fortran and sum(size > 1 for size in shape) > 1:
        raise CorruptShardError(
            f"{path}: holds columns (Fortran order), expected rows of tokens. Save the array "
            f"again, with numpy.ascontiguousarray."
        )
    found = np.dtype(DTYPES[dtype.name])
    expected = header_bytes + math.prod(shape) * dtype.itemsize
    _check_size(path, num_bytes, expected)
    return TokenFile(
        path=path,
        description="NumPy array",
        dtype=found,
        num_tokens=math.prod(shape),
        header_bytes=header_bytes,
        names_type=True,
    )


def _is_llmc(head: bytes) -> bool:
    magic = _LLMC_MAGIC.unpack_from(head)[0]
    return magic == _LLMC_EVALUATION or any(magic == known for known, _ in _LLMC_TOKENS)


def _of_llmc(path: Path, head: bytes, num_bytes: int) -> TokenFile:
    magic, version, num_tokens = _LLMC_MAGIC.unpack_from(head)
    if magic == _LLMC_EVALUATION:
        raise CorruptShardError(
            f"{path}: is an evaluation file of llm.c, expected tokens of texts. Leave it out of "
            f"the inputs."
        )
    dtype = _LLMC_TOKENS.get((magic, version))
    if dtype is None or num_tokens < 1 or len(head) < _LLMC_HEADER_BYTES:
        raise CorruptShardError(
            f"{path}: found a header of llm.c of {len(head):,} bytes, with magic {magic}, version "
            f"{version} and {num_tokens:,} tokens; expected {_LLMC_HEADER_BYTES:,} bytes, and "
            f"version 1 (magic 20240520) or 7 (magic 20240801). {_AGAIN}"
        )
    _check_size(path, num_bytes, _LLMC_HEADER_BYTES + num_tokens * np.dtype(dtype).itemsize)
    return TokenFile(
        path=path,
        description="llm.c",
        dtype=np.dtype(dtype),
        num_tokens=num_tokens,
        header_bytes=_LLMC_HEADER_BYTES,
        names_type=True,
    )


def _of_datatrove(path: Path, num_bytes: int, dtype: str | None) -> TokenFile:
    metadata, ends_path = Path(f"{path}.metadata"), Path(f"{path}.index")
    named, num_tokens = None, None
    if metadata.exists():
        lines = read_text(metadata, most_bytes=_MOST_METADATA_BYTES).splitlines()
        size, count = (lines[0].rpartition("|")[2], lines[1]) if len(lines) > 1 else ("", "")
        named = {"2": "uint16", "4": "int32"}.get(size)
        if named is None or not count.isdecimal():
            raise CorruptShardError(
                f"{metadata}: found {' '.join(lines)[:60]!r}, expected TOKENIZER|2 or TOKENIZER|4, "
                f"and the number of tokens in the next line. Copy the file again, or move it away "
                f"and give --dtype."
            )
        num_tokens = int(count)
    found = _raw(path, num_bytes, named or dtype, "datatrove")
    if num_tokens is not None:
        _check_size(path, num_bytes, num_tokens * found.dtype.itemsize)
    ends_path = ends_path if ends_path.exists() else None
    return replace(found, ends_path=ends_path, names_type=named is not None)


def _raw(path: Path, num_bytes: int, dtype: str | None, description: str) -> TokenFile:
    if dtype is None:
        raise ConfigError(
            f"{path}: the file does not name its token type. Give --dtype: uint16 for most "
            f"vocabularies of up to 65,536 ids, uint32 for larger ones."
        )
    found = np.dtype(DTYPES[dtype])
    num_tokens, rest = divmod(num_bytes, found.itemsize)
    if rest:
        raise CorruptShardError(
            f"{path}: found {num_bytes:,} bytes, expected a multiple of {found.itemsize}, the "
            f"bytes of a token of type {dtype}. Give the --dtype with which it was written, or "
            f"copy it again."
        )
    return TokenFile(path=path, description=description, dtype=found, num_tokens=num_tokens)


def _check_size(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise CorruptShardError(
            f"{path}: found {found:,} bytes, expected {expected:,}, by its header. The copy is "
            f"incomplete, or another program appended to it: copy it again."
        )

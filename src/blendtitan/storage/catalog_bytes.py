"""A catalog as bytes: no pickle, no archive, nothing larger than the bytes themselves.

    size  field
    8     length of the texts, uint64
    ...   texts: JSON list of the shards' prefixes, their corpora, and the settings
    ...   the columns one after the other, one entry per shard

Everything is little endian.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError
from blendtitan.storage.index_format import DTYPE_CODES
from blendtitan.storage.shard_checksums import CHECKSUM_BYTES

Texts = tuple[tuple[str, ...], tuple[str, ...], str]
"""Prefixes, corpora, settings."""

Columns = dict[str, NDArray[Any]]

COLUMNS: dict[str, tuple[str, type[np.generic], tuple[int, ...]]] = {
    "weights": ("<f8", np.float64, ()),
    "dtype_codes": ("<u1", np.uint8, ()),
    "num_sequences": ("<i8", np.int64, ()),
    "document_cuts": ("<i8", np.int64, (4,)),
    "token_cuts": ("<i8", np.int64, (4,)),
    "lacks_eod": ("<u1", np.bool_, ()),
    "eod_roles": ("<u1", np.uint8, ()),
    "checksums": ("<u1", np.uint8, (CHECKSUM_BYTES,)),
}
"""The columns in their order: type in the bytes, type in memory, shape of one shard's entry."""

_LAST_ROLE = 2

_LENGTH = struct.Struct("<Q")


def encode_catalog(texts: Texts, columns: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of a catalog."""
    encoded = json.dumps(texts).encode()
    stored = (columns[name].astype(dtype).tobytes() for name, (dtype, _, _) in COLUMNS.items())
    return b"".join([_LENGTH.pack(len(encoded)), encoded, *stored])


def decode_catalog(data: bytes) -> tuple[Texts, Columns]:
    """Texts and columns of the bytes of a catalog.

    Raises:
        CorruptShardError: They are something else, or contradict each other.
    """
    try:
        (size,) = _LENGTH.unpack_from(data)
        at = _LENGTH.size + size
        texts = _checked_texts(json.loads(data[_LENGTH.size : at]))
        columns = _columns(data, at, num_shards=len(texts[0]))
        _check_columns(columns)
    except (ValueError, TypeError, RecursionError, struct.error) as error:
        raise CorruptShardError(
            f"the catalog is damaged ({error}). Start again with another "
            f"blendcorpus.data_cache_path, or without one."
        ) from error
    return texts, columns


def _columns(data: bytes, at: int, *, num_shards: int) -> Columns:
    columns: Columns = {}
    for name, (dtype, kind, shape) in COLUMNS.items():
        # A view, which fails where the bytes do not suffice; then a copy, because it may lie at
        # an odd address.
        column = np.frombuffer(data, dtype, num_shards * math.prod(shape), at)
        columns[name] = column.reshape(-1, *shape).astype(kind)
        at += column.nbytes
    if at != len(data):
        raise ValueError(f"found {len(data):,} bytes, expected {at:,}")
    return columns


def _checked_texts(texts: Any) -> Texts:
    prefixes, corpora, settings = texts
    if not (_are_texts(prefixes) and _are_texts(corpora) and isinstance(settings, str)):
        raise ValueError("its texts are not shards, their corpora, and settings")
    if not len(prefixes) == len(corpora) > 0:
        raise ValueError(f"{len(prefixes):,} shards, {len(corpora):,} corpora")
    return tuple(prefixes), tuple(corpora), settings


def _are_texts(values: object) -> TypeGuard[list[str]]:
    return isinstance(values, list) and all(
        isinstance(value, str) for value in cast("list[object]", values)
    )


def _check_columns(columns: Columns) -> None:
    codes = [code for code, dtype in DTYPE_CODES.items() if dtype.kind in "iu"]
    weights, tokens = columns["weights"], columns["token_cuts"]
    sound = {
        "weights": np.isfinite(weights) & (weights > 0),
        "dtype_codes": np.isin(columns["dtype_codes"], codes),
        "num_sequences": columns["num_sequences"] > 0,
        "document_cuts": _grow_from_zero(columns["document_cuts"]),
        "eod_roles": columns["eod_roles"] <= _LAST_ROLE,
        "token_cuts": _grow_from_zero(tokens) & (tokens[:, -1] > 0),
    }
    for name, shards in sound.items():
        if not shards.all():
            raise ValueError(f"{name} of shard {int(np.argmin(shards)):,} cannot be right")


def _grow_from_zero(cuts: NDArray[np.int64]) -> NDArray[np.bool_]:
    return (cuts[:, 0] == 0) & (cuts[:, 1:] >= cuts[:, :-1]).all(axis=1)

"""Catalogs as bytes, to send to other processes or keep between runs."""

import json
import struct
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError
from blendtitan.storage.catalog import EOD_BEGINS, Catalog
from blendtitan.storage.index_format import DTYPE_CODES
from blendtitan.storage.records import CHECKSUM_BYTES

# One shard in the bytes of a catalog. Before these: the length of a JSON text and the text, which
# lists the prefixes, the corpora, the settings and, if there are any, the removed documents.
_ROW = np.dtype(
    [
        ("weights", "<f8"),
        ("dtype_codes", "<u1"),
        ("num_sequences", "<i8"),
        ("document_cuts", "<i8", 4),
        ("token_cuts", "<i8", 4),
        ("lacks_eod", "?"),
        ("eod_roles", "<u1"),
        ("checksums", "<u1", CHECKSUM_BYTES),
        ("file_versions", "<i8", 2),
    ]
)
_TEXT_BYTES = struct.Struct("<Q")


def encode_catalog(catalog: Catalog) -> bytes:
    """A catalog as bytes, for ``decode_catalog``."""
    removed = () if catalog.removed is None else (catalog.removed.json(),)
    text = json.dumps([catalog.prefixes, catalog.corpora, catalog.settings, *removed]).encode()
    rows = np.empty(len(catalog.prefixes), _ROW)
    for name in _ROW.names or ():
        rows[name] = getattr(catalog, name)
    return _TEXT_BYTES.pack(len(text)) + text + rows.tobytes()


def decode_catalog(data: bytes) -> Catalog:
    """The catalog that ``encode_catalog`` wrote.

    Raises:
        CorruptShardError: The bytes are damaged, or contradict each other.
    """
    try:
        (text_bytes,) = _TEXT_BYTES.unpack_from(data)
        rows_at = _TEXT_BYTES.size + text_bytes
        prefixes, corpora, settings, *removed = json.loads(data[_TEXT_BYTES.size : rows_at])
        rows = np.frombuffer(data[rows_at:], _ROW)
        _check_texts(prefixes, corpora, settings, num_shards=len(rows))
        _check_rows(rows)
    except (ValueError, TypeError, RecursionError, OverflowError, struct.error) as error:
        raise CorruptShardError(
            f"the catalog is damaged ({error}). Start again with another "
            f"blendcorpus.data_cache_path, or without one."
        ) from error
    columns: dict[str, Any] = {name: rows[name].copy() for name in _ROW.names or ()}
    catalog = Catalog(tuple(prefixes), tuple(corpora), settings=settings, **columns)
    if not removed:
        return catalog
    from blendtitan.storage.removed_documents import RemovedDocuments

    return replace(catalog, removed=RemovedDocuments.from_json(*removed))


def _check_texts(prefixes: Any, corpora: Any, settings: Any, *, num_shards: int) -> None:
    for texts in (prefixes, corpora, [settings]):
        if not isinstance(texts, list) or {*map(type, cast("list[object]", texts))} - {str}:
            raise ValueError("its texts are not shards, their corpora, and settings")
    if not len(prefixes) == len(corpora) == num_shards > 0:
        raise ValueError(f"{len(prefixes):,} shards, {len(corpora):,} corpora, {num_shards:,} rows")


def _check_rows(rows: NDArray[Any]) -> None:
    codes = [code for code, dtype in DTYPE_CODES.items() if dtype.kind in "iu"]
    weights, tokens = rows["weights"], rows["token_cuts"]
    sound = {
        "weights": np.isfinite(weights) & (weights > 0),
        "dtype_codes": np.isin(rows["dtype_codes"], codes),
        "num_sequences": rows["num_sequences"] > 0,
        "document_cuts": _grow(rows["document_cuts"]) & (rows["document_cuts"][:, 0] == 0),
        "token_cuts": _grow(tokens) & (tokens[:, -1] > tokens[:, 0]),
        "lacks_eod": rows["lacks_eod"].view(np.uint8) <= 1,
        "eod_roles": rows["eod_roles"] <= EOD_BEGINS,
    }
    for name, shards in sound.items():
        if not shards.all():
            raise ValueError(f"{name} of shard {int(np.argmin(shards)):,} cannot be right")


def _grow(cuts: NDArray[np.int64]) -> NDArray[np.bool_]:
    return (cuts[:, 0] >= 0) & (cuts[:, 1:] >= cuts[:, :-1]).all(axis=1)

"""Fingerprints of the shards of each corpus, by which a resumed run recognises its data."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from blendtitan.config import SPLITS
from blendtitan.history.phases import CorpusShards, occurrences
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.records import CHECKSUM_BYTES, differ

T = TypeVar("T")

_DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Identifies each shard of a catalog, for all splits."""

    names: list[str]
    """File names without suffix."""
    ids: list[str]
    """Digest of everything known about each shard except its weight and its folder."""

    @classmethod
    def of_catalog(cls, catalog: Catalog) -> Self:
        """The fingerprints of a catalog's shards, in its order."""
        names = [prefix[prefix.rfind("/") + 1 :] for prefix in catalog.prefixes]
        columns = [column.reshape(len(column), -1).astype("<i8") for column in _contents(catalog)]
        facts = np.concatenate(columns, axis=1)
        ids = [
            hashlib.blake2b(name.encode() + row.tobytes(), digest_size=_DIGEST_BYTES).hexdigest()
            for name, row in zip(names, facts, strict=True)
        ]
        return cls(names, ids)


def corpus_shards(
    catalog: Catalog, shards_of: Mapping[str, Sequence[int]], *, split: str, blended: bool
) -> dict[str, CorpusShards]:
    """The shards of each corpus, as at the start of a run.

    Args:
        catalog: All shards.
        shards_of: Indices of the shards that have documents in the split, by corpus.
        split: Name of the split.
        blended: Whether each shard has its own row.
    """
    known = Fingerprints.of_catalog(catalog)
    tokens = catalog.split_tokens(SPLITS.index(split)).tolist()
    weights = catalog.weights.tolist()
    places = occurrences(catalog.corpora)

    def of(column: Sequence[T], shards: Sequence[int]) -> tuple[T, ...]:
        return tuple([column[shard] for shard in shards])

    return {
        name: CorpusShards(
            names=of(known.names, shards),
            ids=of(known.ids, shards),
            tokens=of(tokens, shards),
            weights=of(weights, shards),
            places=of(places, shards),
            pasts=((),) * (len(shards) if blended else 1),
        )
        for name, shards in shards_of.items()
    }


def corpora_held(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """The facts about each corpus in a state: its shards, their weights, and tokens by split."""
    shards_of: dict[str, list[int]] = {name: [] for name in sorted(set(catalog.corpora))}
    for shard, name in enumerate(catalog.corpora):
        shards_of[name].append(shard)
    tokens = np.diff(catalog.token_cuts)
    return {
        name: {
            "tokens": dict(zip(SPLITS, tokens[shards].sum(axis=0).tolist(), strict=True)),
            "shards": len(shards),
            "shards_digest": _shards_digest(catalog, shards),
        }
        for name, shards in shards_of.items()
    }


def checksums_held(catalog: Catalog) -> dict[str, str]:
    """Checksums of each corpus's shards, as hexadecimal text, if any of them has one."""
    shards_of: dict[str, list[int]] = {name: [] for name in sorted(set(catalog.corpora))}
    for shard, name in enumerate(catalog.corpora):
        shards_of[name].append(shard)
    held = {name: catalog.checksums[shards] for name, shards in shards_of.items()}
    return {name: checksums.tobytes().hex() for name, checksums in held.items() if checksums.any()}


def changed_checksums(catalog: Catalog, saved: Mapping[str, str]) -> list[str]:
    """A line for each shard whose checksum differs from the saved one."""
    lines: list[str] = []
    for name, now in checksums_held(catalog).items():
        found, expected = bytes.fromhex(now), bytes.fromhex(saved.get(name, ""))
        prefixes = [p for p, corpus in zip(catalog.prefixes, catalog.corpora, strict=True)
                    if corpus == name]  # fmt: skip
        if len(found) != len(expected):
            continue
        for place, prefix in enumerate(prefixes):
            span = slice(place * CHECKSUM_BYTES, (place + 1) * CHECKSUM_BYTES)
            if differ(expected[span], found[span]):
                lines.append(
                    f"  corpus {name!r}, shard {prefix}: checksum {expected[span].hex()}, now "
                    f"{found[span].hex()}"
                )
    return lines


def _shards_digest(catalog: Catalog, shards: list[int]) -> str:
    """Digest of everything known about shards except their folders, since data may move."""
    names = [os.path.basename(catalog.prefixes[shard]) for shard in shards]
    digest = hashlib.blake2b(json.dumps(names).encode(), digest_size=_DIGEST_BYTES)
    for column in (catalog.weights, *_contents(catalog)):
        digest.update(column[shards].astype(column.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _contents(catalog: Catalog) -> list[np.ndarray[Any, Any]]:
    return [
        *(catalog.dtype_codes, catalog.num_sequences),
        *(catalog.document_cuts, catalog.token_cuts, catalog.lacks_eod),
    ]

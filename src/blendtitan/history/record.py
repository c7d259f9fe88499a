"""Records of a run's data and settings in a saved state, compared with those of a run now.

Shards are recognised by fingerprints. Multiplying all weights by one number changes nothing, so
shares are compared and shown.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self, TypeVar

import numpy as np

from blendtitan.config import SPLITS
from blendtitan.history.phases import (
    CorpusShards,
    Phase,
    as_recorded,
    occurrences,
    same_proportions,
)
from blendtitan.history.skips import SkippedStretch, skips_of
from blendtitan.order.blend import Segment, shares_of
from blendtitan.order.course import Skips
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
    """The shards of each corpus, as at the start of a run."""
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
    tokens = np.diff(catalog.token_cuts)
    return {
        name: {
            "tokens": dict(zip(SPLITS, tokens[shards].sum(axis=0).tolist(), strict=True)),
            "shards": len(shards),
            "shards_digest": _shards_digest(catalog, shards),
        }
        for name, shards in catalog.shards_of_corpora().items()
    }


def checksums_held(catalog: Catalog) -> dict[str, str]:
    """Checksums of each corpus's shards, as hexadecimal text, if any of them has one."""
    held = {name: catalog.checksums[shards] for name, shards in catalog.shards_of_corpora().items()}
    return {name: checksums.tobytes().hex() for name, checksums in held.items() if checksums.any()}


def changed_checksums(catalog: Catalog, saved: Mapping[str, str]) -> list[str]:
    """A line for each shard whose checksum differs from the saved one."""
    lines: list[str] = []
    shards_of = catalog.shards_of_corpora()
    for name, now in checksums_held(catalog).items():
        found, expected = bytes.fromhex(now), bytes.fromhex(saved.get(name, ""))
        if len(found) != len(expected):
            continue
        for place, shard in enumerate(shards_of[name]):
            span = slice(place * CHECKSUM_BYTES, (place + 1) * CHECKSUM_BYTES)
            if differ(expected[span], found[span]):
                lines.append(
                    f"  corpus {name!r}, shard {catalog.prefixes[shard]}: checksum "
                    f"{expected[span].hex()}, now {found[span].hex()}"
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


_LISTED = 8
"""Largest number of shares to show of one blend."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """The data and settings of a run in a saved state. Everything except phases is JSON."""

    fixed_facts: dict[str, Any]
    """Facts that determine order and tokens, and never change in a run."""
    phase_facts: dict[str, Any]
    """Facts that determine the order, and change only with a new phase."""
    phases: tuple[Phase, ...]
    checksums: dict[str, str]
    """Checksums of each corpus's shards, where known; the order does not depend on them."""
    skipped: tuple[SkippedStretch, ...] = ()
    """Stretches of slots that the run leaves out."""

    @property
    def skips(self) -> Skips:
        """The slots that the run leaves out."""
        return skips_of(self.skipped)


def differences(saved: Any, now: Any, path: str = "") -> list[str]:
    """One line for each place where two nested dicts or lists differ."""
    if isinstance(saved, list) and isinstance(now, list):
        saved, now = dict(enumerate(saved)), dict(enumerate(now))
    if isinstance(saved, dict) and isinstance(now, dict):
        keys = [*saved, *(key for key in now if key not in saved)]
        prefix = f"{path}." if path else ""
        return [
            line
            for key in keys
            for line in differences(saved.get(key), now.get(key), f"{prefix}{key}")
        ]
    return [] if saved == now else ["  {}: checkpoint {}, now {}".format(path, *_told(saved, now))]


def _told(saved: Any, now: Any) -> tuple[str, str]:
    """Two different values as text. Floats have at least 4 digits, and enough to differ."""
    first, second = ("there" if isinstance(side, dict) else repr(side) for side in (saved, now))
    if isinstance(saved, float) and isinstance(now, float):
        digits = next((d for d in range(4, 17) if f"{saved:.{d}g}" != f"{now:.{d}g}"), 17)
        first, second = (f"{side:.{digits}g}" for side in (saved, now))
    return first, second


def phase_differences(saved: RunRecord, now: RunRecord, *, blended: bool) -> list[str]:
    """Differences that start a new phase."""
    if not (saved.phases and now.phases):  # the original's order has none
        return differences(saved.phase_facts, now.phase_facts)
    before, after = saved.phases[-1], now.phases[-1]
    held, holds = saved.phase_facts["corpora"], now.phase_facts["corpora"]
    held = held if isinstance(held, dict) else {}
    of_corpora = (
        _corpus_differences(
            f"corpora.{name}",
            (held.get(name), holds.get(name)),
            (before.corpora.get(name), after.corpora.get(name)),
            blended=blended,
        )
        for name in dict.fromkeys([*held, *holds])
    )
    return [
        *differences(before.seq_len, after.seq_len, "seq_length"),
        *_segment_differences(before.segments, after.segments),
        *chain.from_iterable(of_corpora),
    ]


def _segment_differences(saved: Sequence[Segment], now: Sequence[Segment]) -> list[str]:
    now = as_recorded(now, saved)
    lines: list[str] = []
    for number in range(max(len(saved), len(now))):
        path = f"segments.{number}"
        a, b = (list(each[number : number + 1]) for each in (saved, now))
        if not (a and b):
            lines += differences(_shown(a), _shown(b), path)
            continue
        lines += differences(a[0].first_slot, b[0].first_slot, f"{path}.first_slot")
        lines += _share_differences(a[0].weights, b[0].weights, f"{path}.shares")
    return lines


def _shown(segment: Sequence[Segment]) -> object:
    """A segment that only one side has; None if empty."""
    return next((f"from slot {each.first_slot:,}" for each in segment), None)


def _share_differences(
    saved: Mapping[str, float], now: Mapping[str, float], path: str
) -> list[str]:
    if saved == now:
        return []
    a, b = ({k: float(f"{v:.12g}") for k, v in shares_of(each).items()} for each in (saved, now))
    return _first(differences(a, b, path))


def _corpus_differences(
    path: str,
    facts: tuple[Any, Any],
    shards: tuple[CorpusShards | None, CorpusShards | None],
    *,
    blended: bool,
) -> list[str]:
    found = differences(*facts, path)
    before, now = shards
    if found != differences(_digest(facts[0]), _digest(facts[1]), path) or not (before and now):
        return found  # more than the digest, or less
    # The digest covers the weights, too.
    contents = [(each.names, each.ids, each.tokens) for each in (before, now)]
    if contents[0] != contents[1] or before.weights == now.weights:
        return found
    if not blended or same_proportions(before.weights, now.weights):
        return []
    # Several shards may have one file name.
    labels = [f"{name} ({number})" for number, name in enumerate(now.names)]
    a, b = (dict(zip(labels, each.weights, strict=True)) for each in (before, now))
    return _share_differences(a, b, f"{path}.shares")


def _digest(facts: Any) -> dict[str, Any]:
    return {"shards_digest": facts.get("shards_digest")} if isinstance(facts, dict) else {}


def _first(lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    more = len(lines) - _LISTED
    return lines if more <= 0 else [*lines[:_LISTED], f"  and {more:,} more shares"]

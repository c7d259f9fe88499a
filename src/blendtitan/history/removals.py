"""The list of removed documents in the state of a run, and compared with the list on resume.

A document that was removed stays removed: the list only grows. The state has the number and the
digest of the removed documents, and the slot from which on each version of the list applied, so
that samples before it can be read again as they were.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import MAX_SLOT
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.removed import Removal, with_removed_spans
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.history.record import Fingerprints
from blendtitan.storage.catalog import Catalog
from blendtitan.visible import counted

IntArray = NDArray[np.int64]

_DIGEST_BYTES = 16


def digests_of(catalog: Catalog, counts: Sequence[int]) -> list[str]:
    """Digests of the first ``counts`` removed documents of a catalog, which it has.

    They name shards by fingerprints, since folders may change.
    """
    removed = catalog.removed
    if removed is None or not len(removed):
        return [_digest(b"")] * len(counts)
    ids = Fingerprints.of_catalog(catalog).ids
    pairs = zip(removed.shards.tolist(), removed.documents.tolist(), strict=True)
    lines = [f"{ids[shard]}:{document}\n".encode() for shard, document in pairs]
    return [_digest(b"".join(lines[:count])) for count in counts]


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def removal_of(catalog: Catalog, first_slot: int) -> Removal:
    """The whole list of a catalog, removed from a slot on."""
    count = 0 if catalog.removed is None else len(catalog.removed)
    return Removal(first_slot, count, *digests_of(catalog, [count]))


def removals_of(dataset: Dataset) -> tuple[Removal, ...]:
    """When the list of a dataset's run grew; nothing if it never removed a document."""
    if not isinstance(dataset, BlendedDataset) or dataset.rows.removed is None:
        return ()
    return dataset.rows.removed.removals or _removals_of_new(dataset)


@lru_cache(maxsize=1)  # each state has it, and a long list takes a tenth of a second
def _removals_of_new(dataset: BlendedDataset) -> tuple[Removal, ...]:
    whole = removal_of(dataset.catalog, 0)
    return (whole,) if whole.num_documents else ()


def first_slots(catalog: Catalog, removals: Sequence[Removal]) -> IntArray:
    """The first slot from which on each removed document of a catalog is left out. Shape ``(n,)``.

    ``removals`` ends with the present list. Versions before one that was not extended, but replaced
    with ``on_change = "new_segment"``, are of other documents. A document that a shorter version
    gave back counts from the version that removed it again.
    """
    removed = catalog.removed
    count = 0 if removed is None else len(removed)
    found = np.zeros(count, np.int64)
    for removal in reversed(removals[_first_version(catalog, removals) :]):
        count = min(count, removal.num_documents)
        found[:count] = removal.first_slot
    return found


def _first_version(catalog: Catalog, removals: Sequence[Removal]) -> int:
    """Number of versions of the list before those that the present list extends."""
    size = 0 if catalog.removed is None else len(catalog.removed)
    digests = digests_of(catalog, [removal.num_documents for removal in removals])
    for i in reversed(range(len(removals))):
        if removals[i].num_documents > size or removals[i].digest != digests[i]:
            return i + 1
    return 0


def planned_removals(
    catalog: Catalog, recorded: Sequence[Removal], slot: int
) -> tuple[Removal, ...]:
    """When the list grew, in a run with these removals in its state that resumes at ``slot``."""
    now = removal_of(catalog, slot)
    if recorded and recorded[-1][1:] == now[1:]:
        return tuple(recorded)
    if not recorded and not now.num_documents:
        return ()
    return (*removals_before(recorded, slot), now)


def removed_slots(
    catalog: Catalog, recorded: Sequence[Removal] = (), slot: int = 0
) -> dict[tuple[int, int], int]:
    """The first slot that is read without each removed document: by shard and document.

    The run has ``recorded`` in its state, and resumes at ``slot``.
    """
    removed = catalog.removed
    if removed is None:
        return {}
    slots = first_slots(catalog, planned_removals(catalog, recorded, slot)).tolist()
    keys = zip(removed.shards.tolist(), removed.documents.tolist(), strict=True)
    return dict(zip(keys, slots, strict=True))


def removed_from(dataset: Dataset, slot: int) -> Dataset:
    """The dataset of a run whose slots before ``slot`` another loader read, with all documents."""
    if slot == 0 or not removals_of(dataset):
        return dataset
    return _with_removals(dataset, [removal_of(dataset.catalog, slot)])


def continued(
    dataset: Dataset, recorded: Sequence[Removal], slot: int, *, may_change: bool
) -> tuple[Dataset, list[str]]:
    """The dataset of a run that resumes at ``slot``, and lines about a changed list.

    Args:
        dataset: The dataset, as at the start of a run.
        recorded: The removals in the state.
        slot: The first slot to read.
        may_change: Whether the list may be replaced.

    Raises:
        ResumeError: The list lacks documents that were removed before.
    """
    removals = planned_removals(dataset.catalog, recorded, slot)
    if not removals or removals == tuple(recorded):
        return (_with_removals(dataset, removals) if removals else dataset), []
    now = removals[-1]
    last = recorded[-1] if recorded else removal_of(replace(dataset.catalog, removed=None), 0)
    is_extended = _first_version(dataset.catalog, [last]) == 0
    if not is_extended and not may_change:
        raise _not_extended(dataset, last, now)
    added = now.num_documents - last.num_documents if is_extended else now.num_documents
    lines = [f"  {counted(added, 'document')} of {dataset.config.removed_documents}"]
    if not is_extended:
        lines = [
            f"  before: a list of {counted(last.num_documents, 'document')}, which the new one "
            f"does not extend: documents that it lacks are read again",
            f"  now: a list of {counted(now.num_documents, 'document')}",
        ]
    return _with_removals(dataset, removals), lines


def _with_removals(dataset: Dataset, removals: Sequence[Removal]) -> Dataset:
    assert isinstance(dataset, BlendedDataset)  # other orders refuse a list
    slots = first_slots(dataset.catalog, removals)
    rows = with_removed_spans(dataset.rows, slots, removals)
    return BlendedDataset(
        dataset.config,
        dataset.split,
        rows,
        dataset.weights,
        dataset.segments,
        dataset.order,
        dataset.history,
    )


def _not_extended(dataset: Dataset, last: Removal, now: Removal) -> ResumeError:
    path = dataset.config.removed_documents
    listed = counted(now.num_documents, "document")
    found = "blendcorpus.removed_documents is not set" if path is None else f"{path} lists {listed}"
    return ResumeError(
        f"{found}, but the checkpoint was trained without "
        f"{counted(last.num_documents, 'document')} from slot {last.first_slot:,} on "
        f"(digest {last.digest[:12]}). The list must begin with them. Restore these lines, in "
        f"their order, and add new ones at the end. If the shards themselves changed, "
        f'blendcorpus.on_change = "new_segment" replaces the list.'
    )


def removals_before(removals: Sequence[Removal], slot: int) -> tuple[Removal, ...]:
    """Those that the slots before ``slot`` were read with."""
    return tuple(each for each in removals if each.first_slot < slot)


def saved_removals(removals: Sequence[Removal]) -> list[dict[str, Any]]:
    """Removals as JSON, for ``removals_from``."""
    return [each._asdict() for each in removals]


def removals_from(saved: Any, consumed_samples: int = MAX_SLOT) -> tuple[Removal, ...]:
    """The removals that ``saved_removals`` returned, read back from JSON.

    Raises:
        ConfigError: They are damaged.
    """
    try:
        found = tuple(Removal(**each) for each in saved)
        is_right = all(_is_right(each, consumed_samples) for each in found) and all(
            one.first_slot < other.first_slot for one, other in pairwise(found)
        )
    except TypeError:
        found, is_right = (), False
    if not is_right:
        raise ConfigError(f"damaged removals {saved!r}")
    return found


def _is_right(each: Removal, consumed_samples: int) -> bool:
    numbers = (each.first_slot, each.num_documents)
    is_whole = all(type(number) is int and number >= 0 for number in numbers)
    return is_whole and isinstance(each.digest, str) and each.first_slot <= consumed_samples

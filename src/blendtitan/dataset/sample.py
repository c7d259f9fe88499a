"""One sample and its origin."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.documents import mask_labels

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample and its origin."""

    input_ids: IntArray
    """Shape ``(L,)``."""

    labels: IntArray
    """The token after each input; -100 where the loss is masked. Shape ``(L,)``."""

    corpus: str
    """Name of the corpus."""

    shard: str
    """Path of the shard, without suffix, that holds the first token."""

    draw: int
    """Index of the sample among those of its corpus: 0, 1, 2, ..."""

    epoch: int
    """Number of earlier passes over the row of documents that the window is cut from."""

    window: int
    """Index of the window in that row."""


def read_sample(dataset: BlendedDataset, slot: int) -> Sample:
    """Read the sample of a slot. Raises the errors of the dataset's ``plan`` and ``read``."""
    plan = dataset.plan(np.array([slot], np.int64))
    tokens = dataset.read(plan, 0, 1)
    input_ids, labels = tokens[:, :-1].astype(np.int64), tokens[:, 1:].astype(np.int64)
    roles = None if dataset.eod_roles is None else dataset.eod_roles[plan.corpora]
    mask_labels(labels, input_ids, dataset.config, roles)
    if dataset.rows.removed is not None:
        from blendtitan.dataset.removed import mask_removed

        mask_removed(labels, dataset, plan, 0)
    corpus = int(plan.corpora[0])
    history = dataset.history
    before = None if history is None else history.first_draws(dataset.corpora)
    return Sample(
        input_ids=input_ids[0],
        labels=labels[0],
        corpus=dataset.corpora[corpus],
        shard=dataset.catalog.prefixes[int(plan.shards[0])],
        draw=int(plan.places.draws[0] + (0 if before is None else before[corpus])),
        epoch=int(plan.places.epochs[0]),
        window=int(plan.places.windows[0]),
    )

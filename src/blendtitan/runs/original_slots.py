"""What the slots of a run in the original's order are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.history.fingerprints import Fingerprints
from blendtitan.history.phases import Phase, occurrences
from blendtitan.order.blend import Segment
from blendtitan.original.dataset import OriginalDataset
from blendtitan.pace import Paces
from blendtitan.run.segments import Lengths
from blendtitan.runs.slots import Stretch, Window
from blendtitan.storage.catalog import Catalog

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OriginalSlots:
    """The slots of a run: they need the data, and its index of the order."""

    dataset: OriginalDataset
    keys: list[tuple[str, str, int]]
    """Name, id and twin of each shard, as a ``Stretch`` has them."""

    paces: Paces
    split: str = "train"
    chapters: tuple[Phase, ...] = ()

    @property
    def lengths(self) -> Lengths:
        """One length from the first slot on."""
        return [(0, self.dataset.config.seq_length)]

    @property
    def segments(self) -> Sequence[Segment]:
        """One blend for the whole run."""
        return self.dataset.segments_read

    @property
    def corpus_tokens(self) -> dict[str, int]:
        """Tokens of each corpus in the split."""
        return self._by_name(self.dataset.corpus_tokens)

    def draws_before(self, slot: int) -> dict[str, int]:
        """How many of the first ``slot`` slots each corpus has."""
        return self._by_name(self.dataset.draws_before(slot))

    def tokens_before(self, slot: int) -> dict[str, int]:
        """Tokens of each corpus in the first ``slot`` slots."""
        return self._by_name(self.dataset.tokens_before(slot))

    def _by_name(self, numbers: IntArray) -> dict[str, int]:
        return dict(zip(self.dataset.corpora, numbers.tolist(), strict=True))

    @classmethod
    def of_dataset(cls, dataset: OriginalDataset, catalog: Catalog, paces: Paces) -> Self:
        """Those of a dataset; ``catalog`` is from ``as_one_split``."""
        known = Fingerprints.of_catalog(catalog)
        numbers = occurrences(zip(catalog.corpora, known.ids, strict=True))
        return cls(dataset, list(zip(known.names, known.ids, numbers, strict=True)), paces)

    def windows(self, slots: IntArray) -> list[Window]:
        """What some slots are. Shape ``(n,)``.

        Raises:
            ConfigError: A slot is beyond the samples that the order is made for.
            ShardError: An ``.idx`` is missing or damaged.
        """
        return list(self._windows(slots))

    def _windows(self, slots: IntArray) -> Iterator[Window]:
        plan = self.dataset.plan(slots)
        for i, slot in enumerate(slots.tolist()):
            stretches = list(self.dataset.stretches(plan, i))
            record, number = plan.records[i], int(plan.corpora[i])
            corpus = self.dataset.corpora[number]
            shard = int(record["shard"])
            yield Window(
                slot=slot,
                chapter=0,
                corpus=corpus,
                draw=int(self.dataset.draws_before(slot)[number]),
                epoch=self.dataset.epoch(shard, int(record["window"])),
                window=int(record["window"]),
                of_unread=False,
                sample_id=int(plan.sample_ids[i]),
                stretches=tuple(
                    Stretch(corpus, *self.keys[shard], first, count) for first, count in stretches
                ),
            )


def as_one_split(catalog: Catalog) -> Catalog:
    """The catalog as if every document were in train, and none lacked EOD: offsets as they lie."""
    documents, tokens = (
        np.concatenate([np.zeros_like(cuts[:, :1]), np.repeat(cuts[:, 3:], 3, axis=1)], axis=1)
        for cuts in (catalog.document_cuts, catalog.token_cuts)
    )
    no_eod = np.zeros_like(catalog.lacks_eod)
    return replace(catalog, document_cuts=documents, token_cuts=tokens, lacks_eod=no_eod)

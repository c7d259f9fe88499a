"""The loader: turns slots of the global order into batches of tensors, and keeps the state.

Shapes: B = micro batch, L = sequence length.
"""

import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import check_at_least
from blendtitan.dataset.documents import (
    IGNORE_INDEX,
    attention_mask_of,
    document_starts,
    mask_labels,
    positions_of,
)
from blendtitan.dataset.interface import Dataset, PlannedSlots
from blendtitan.errors import ConfigError, EmptySplitError, requires_extra
from blendtitan.order.blend import Segment
from blendtitan.order.slots import Course
from blendtitan.state import SavedState, encode_state, parse_state, resume
from blendtitan.visible import joined, visible_logger

with requires_extra("train", "blendtitan.DataLoader"):
    import torch

logger = visible_logger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro batch of one rank."""

    input_ids: torch.Tensor
    """int64, shape ``(B, L)``."""

    labels: torch.Tensor
    """The token after each input; -100 where the loss is masked. int64, shape ``(B, L)``."""

    corpus_ids: torch.Tensor
    """Index of each row's corpus in ``dataset.corpora``. int64, shape ``(B,)``."""

    positions: torch.Tensor | None
    """Offset of each token in its document with intra-document masking, otherwise in the window.
    int64, shape ``(B, L)``."""

    attention_mask: torch.Tensor | None
    """True where a token (second to last axis) may attend to another (last axis) that is not
    later, and in the same document. bool, shape ``(B, 1, L, L)``."""


class DataLoader:
    """Batches of one data-parallel rank, prefetched by threads and delivered in order.

    Iteration starts at ``consumed_samples`` and never ends. With ``num_samples``, it starts at slot
    0 each time, and ends after that many samples of all ranks together. All ranks yield the same
    number of batches; rows that pad the last one have only labels of -100.

    Args:
        dataset: A split of ``build_datasets``.
        micro_batch_size: Samples per batch, ``B``. None: the configuration's.
        dp_rank: Index of this data-parallel rank.
        dp_world_size: Number of data-parallel ranks.
        num_workers: Prefetch threads. 0: read in the calling thread, which is faster for a loop
            that only reads. None: the configuration's.
        prefetch: Batches to prefetch. None: one per thread, and at least 2.
        num_samples: Length of a finite stream, in samples of all ranks. None: endless.
        batches_per_step: The number of batches of a finite stream is a multiple of this.
        positions: Whether batches have positions. None: only with intra-document masking.
        attention_mask: Whether batches have a mask. None: only with intra-document masking.

    Raises:
        EmptySplitError: ``dataset`` is None.
        ConfigError: A number is out of range, or no micro batch size is given.
    """

    def __init__(
        self,
        dataset: Dataset | None,
        micro_batch_size: int | None = None,
        *,
        dp_rank: int = 0,
        dp_world_size: int = 1,
        num_workers: int | None = None,
        prefetch: int | None = None,
        num_samples: int | None = None,
        batches_per_step: int = 1,
        positions: bool | None = None,
        attention_mask: bool | None = None,
    ) -> None:
        if dataset is None:
            raise EmptySplitError(
                "the split to load is empty: no shard has enough documents for its part of "
                "`split`. Give it a larger part, or do not use it."
            )
        config = dataset.config
        micro_batch = config.micro_batch_size if micro_batch_size is None else micro_batch_size
        workers = config.num_workers if num_workers is None else num_workers
        prefetch = max(2, workers) if prefetch is None else prefetch
        if micro_batch is None:
            raise ConfigError("micro_batch_size is missing, expected a number of samples")
        check_at_least("micro_batch_size", micro_batch, 1)
        check_at_least("num_workers", workers, 0)
        check_at_least("prefetch", prefetch, 0)
        check_at_least("batches_per_step", batches_per_step, 1)
        if num_samples is not None:
            check_at_least("num_samples", num_samples, 1)
        self.dataset = dataset
        """The split. Loading a state replaces it by one with the history of the run."""
        self._as_begun = dataset
        self.consumed_samples = 0
        """Samples delivered to all ranks together since slot 0: the whole state."""
        self.course = Course(micro_batch, dp_rank, dp_world_size)
        """The slots of this rank."""
        self.version = 0
        """Number of times that the dataset or the course was replaced."""
        self.num_workers, self.prefetch = workers, prefetch
        self._num_samples = num_samples
        self._step_samples = self.course.stride * batches_per_step
        masking = config.provide_attention_mask  # intra-document masking
        self._with_positions = masking if positions is None else positions
        self._with_mask = masking if attention_mask is None else attention_mask
        # Pinned memory lets the copy to an accelerator overlap with its work.
        self._pin_memory = torch.cuda.is_available()
        self._plans: dict[int, PlannedSlots] = {}
        self._planning = threading.Lock()

    def __iter__(self) -> Iterator[Batch]:
        if self._num_samples is not None:
            self.consumed_samples = 0
        return _Stream(self)

    def state_dict(self, *, more: Mapping[str, Any] = MappingProxyType({})) -> dict[str, str]:
        """The state after the batches delivered so far, as one JSON text. The same on every rank.

        Args:
            more: Additional JSON values to save in the state, by key.
        """
        return encode_state(
            self.dataset, self.course.between_steps(self.consumed_samples), more=more
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state. An iterator in use does so, too.

        Raises:
            ResumeError: Data or settings differ from those of the state.
        """
        self.resume(parse_state(state_dict))

    def resume(self, state: SavedState) -> None:
        """Continue from a parsed state. Raises the same errors as ``load_state_dict``."""
        resumed = resume(state, self._as_begun)
        for reason, lines in resumed.warnings() if self.course.dp_rank == 0 else ():
            logger.warning("%s\n%s", reason, joined(lines))
        self.replace(resumed.dataset)
        self.consumed_samples = self.course.between_steps(resumed.consumed_samples)

    def set_segments(self, changes: Sequence[Segment]) -> None:
        """Plan the future segments; see ``BlendedDataset.with_changes``.

        The samples consumed so far must have been read with the same segments.

        Raises:
            ConfigError: The changes cannot be used.
        """
        self._as_begun = self._as_begun.with_changes(changes)
        dataset = self.dataset.with_changes(changes)
        if dataset.segments != self.dataset.segments:
            self.replace(dataset)

    def set_skips(self, skipped: Sequence[tuple[Any, ...]]) -> None:
        """Leave out stretches ``(first, stop)`` of slots. States that are loaded must agree."""
        from blendtitan.history.run import with_skips

        self._as_begun, _ = with_skips(self._as_begun, skipped)
        dataset, skips = with_skips(self.dataset, skipped)
        self.replace(dataset, course=skips.course(self.course))
        self.consumed_samples = skips.first_kept(self.consumed_samples)

    def replace(self, dataset: Dataset | None = None, *, course: Course | None = None) -> None:
        """Read another dataset or other slots from now on; prefetched batches are dropped."""
        with self._planning:
            self.dataset = dataset or self.dataset
            self.course = course or self.course
            self.version += 1
            self._plans.clear()

    def set_consumed_by_global_step(self, step: int, global_batch_size: int) -> None:
        """Move to the end of ``step`` optimizer steps of ``global_batch_size`` samples each.

        Raises:
            ConfigError: ``step`` is below 0 or ``global_batch_size`` below 1.
        """
        check_at_least("step", step, 0)
        check_at_least("global_batch_size", global_batch_size, 1)
        self.begin_at(step * global_batch_size)

    def begin_at(self, consumed_samples: int) -> None:
        """Move to the end of so many samples, which another loader has read."""
        self.consumed_samples = self.course.between_steps(consumed_samples)
        if self.dataset.config.removed_documents is not None:
            from blendtitan.history.removals import removed_from

            self.replace(removed_from(self.dataset, consumed_samples))

    def is_past_end(self, consumed_samples: int) -> bool:
        """Whether a finite stream has ended. An endless one never has."""
        if self._num_samples is None:
            return False
        num_steps = -(-self._num_samples // self._step_samples)
        return consumed_samples >= num_steps * self._step_samples

    def batch_at(self, consumed_samples: int) -> Batch:
        """This rank's batch after ``consumed_samples`` samples of all ranks. Thread-safe."""
        dataset, plan, start = self._planned(consumed_samples)
        stop = start + self.course.micro_batch
        tokens = dataset.read(plan, start, stop)
        inputs = tokens[:, :-1]
        labels = tokens[:, 1:].astype(np.int64, order="C")
        corpora = plan.corpora[start:stop]
        config, roles = dataset.config, None
        if config.finds_documents:
            roles = None if dataset.eod_roles is None else dataset.eod_roles[corpora]
            mask_labels(labels, inputs, config, roles)
        if config.removed_documents is not None:
            from blendtitan.dataset.removed import mask_removed

            mask_removed(labels, dataset, plan, start)
        if self._num_samples is not None:
            slots = self.course.slots(consumed_samples)[0]
            labels[slots >= self._num_samples] = IGNORE_INDEX
        positions = mask = None
        if self._with_positions or self._with_mask:
            eod_id = config.eod_token_id if config.provide_attention_mask else None
            starts = document_starts(inputs, eod_id=eod_id, roles=roles)
            positions = self._tensor(positions_of(starts)) if self._with_positions else None
            mask = self._tensor(attention_mask_of(starts)) if self._with_mask else None
        return Batch(
            input_ids=self._tensor(inputs.astype(np.int64, order="C")),
            labels=self._tensor(labels),
            corpus_ids=self._tensor(corpora.copy()),
            positions=positions,
            attention_mask=mask,
        )

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self._pin_memory else tensor

    def _planned(self, consumed_samples: int) -> tuple[Dataset, PlannedSlots, int]:
        """The dataset, a plan that contains this rank's next slots, and their start in it."""
        with self._planning:
            dataset = self.dataset
            block, place = self.course.block(consumed_samples)
            plan = self._plans.get(block)
            if plan is None:
                # The block may begin before the first readable slot.
                slots = np.maximum(self.course.slots(block).ravel(), dataset.first_slot)
                if self._num_samples is not None:
                    # Padding of the last step is read, too, and must exist.
                    slots = np.minimum(slots, self._num_samples - 1)
                plan = dataset.plan(slots)
                # The previous block is still being read while this one begins.
                while len(self._plans) > 1:
                    self._plans.pop(next(iter(self._plans)))
                self._plans[block] = plan
        return dataset, plan, place * self.course.micro_batch


class _Stream(Iterator[Batch]):
    """Batches from the loader's current position, with prefetch.

    After an error, the same batch can be requested again: none is skipped.
    """

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self._version = loader.version
        self._ahead: deque[tuple[int, Future[Batch]]] = deque()
        self._threads: ThreadPoolExecutor | None = None

    def __next__(self) -> Batch:
        loader = self._loader
        at = loader.consumed_samples
        if loader.is_past_end(at):
            self._end_threads()
            raise StopIteration
        batch = self._read_ahead(at) if loader.num_workers else loader.batch_at(at)
        loader.consumed_samples = loader.course.after(at)
        return batch

    def _read_ahead(self, at: int) -> Batch:
        loader = self._loader
        if self._version != loader.version or (self._ahead and self._ahead[0][0] != at):
            self._drop()  # The loader was moved, or a read failed.
            self._version = loader.version
        ready = self._ahead.popleft()[1] if self._ahead else None
        threads = self._running_threads()
        start = loader.course.after(self._ahead[-1][0] if self._ahead else at)
        while len(self._ahead) < loader.prefetch and not loader.is_past_end(start):
            self._ahead.append((start, threads.submit(loader.batch_at, start)))
            start = loader.course.after(start)
        if ready is None or ready.cancel():  # no thread has started on it
            return loader.batch_at(at)
        return ready.result()

    def _running_threads(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._loader.num_workers, "blendtitan-read")
            # Never waits: this may be called wherever garbage is collected.
            self._close = weakref.finalize(
                self, self._threads.shutdown, wait=False, cancel_futures=True
            )
        return self._threads

    def _end_threads(self) -> None:
        if self._threads is not None:
            self._close()
            self._threads = None
        self._ahead.clear()

    def _drop(self) -> None:
        for _, batch in self._ahead:
            batch.cancel()
        self._ahead.clear()

"""The engine's loader as a TorchTitan data loader.

TorchTitan builds it on every rank, with the rank's place among the data-parallel ranks. Tensor,
context and pipeline peers share one place, and so get the same batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.tokenizer import BaseTokenizer

from blendtitan.config import BlendSection
from blendtitan.dataset.interface import Dataset
from blendtitan.history.run import phases_of
from blendtitan.loader import DataLoader
from blendtitan.pace import Pace, Paces, changed_at, paces_of_state, saved_paces
from blendtitan.run.segments import changes_of, lengths_of, segment_settings
from blendtitan.state import SavedState, parse_state
from blendtitan.titan.configured import configured_dataset
from blendtitan.titan.shared_catalog import is_first_rank
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

CORPUS_IDS = "corpus_ids"
"""Key of the numbers of the rows' corpora. int64, shape ``(B,)``."""


class BlendCorpusDataLoader(BaseDataLoader):
    """Batches of a blend of corpora, as TorchTitan's trainer and validator read them."""

    @dataclass(kw_only=True, slots=True)
    class Config(BlendSection, BaseDataLoader.Config):
        """The keys of ``[blendcorpus]``, and what the rest of the run decides."""

        split_name: Literal["train", "valid"] = "train"
        """The split that is read."""

        infinite: bool = True
        """Never end. False: read every window of the split once, on all ranks together, and stop.
        TorchTitan's validator sets it."""

        num_samples: int | None = None
        """Samples of a finite stream, whatever ``infinite`` says; samples that pad its last step
        have no labels. None: as ``infinite`` says."""

        corpus: str | None = None
        """Read this corpus alone. None: the blend."""

        corpus_ids: bool = False
        """Add each row's corpus, under ``CORPUS_IDS``. The trainer must remove it again."""

        positions: bool = True
        """Give the model positions. Attention backends with masks need them, SDPA does not."""

        global_batch_size: int | None = None
        """Samples of a step of all ranks together. None: one micro batch of every rank."""

        def __post_init__(self) -> None:
            if self.segment:
                segment_settings(self.segment)

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        tokenizer: BaseTokenizer,
        seq_len: int,
        local_batch_size: int,
        snapshot_every_n_steps: int | None = None,  # our state is always current
    ) -> None:
        dataset = configured_dataset(config, seq_len=seq_len, tokenizer=tokenizer)
        if config.corpus is not None:
            dataset = dataset.only(config.corpus)
        num_samples = config.num_samples
        if num_samples is None and not config.infinite:
            dataset = dataset.once()
            num_samples = dataset.num_windows
        self._loader = DataLoader(
            dataset,
            local_batch_size,
            dp_rank=dp_rank,
            dp_world_size=dp_world_size,
            num_samples=num_samples,
            # The parts of a pipeline's micro batch must not end one by one.
            batches_per_step=(config.micro_batch_size or local_batch_size) // local_batch_size,
            positions=config.positions,
            attention_mask=False,  # TorchTitan makes masks from positions
        )
        self._with_corpus_ids = config.corpus_ids
        self._is_placed = False
        self._paces: Paces = ()
        self.dp_world_size = dp_world_size
        # Validation reads the blend as the file list has it, the same samples each time.
        is_trained_on = config.split_name == "train" and config.corpus is None
        self._segments = segment_settings(config.segment) if is_trained_on else ()
        micro_batch = config.micro_batch_size or local_batch_size
        self._begun_pace = Pace(
            global_batch_size=config.global_batch_size or micro_batch * dp_world_size
        )
        self._set_segments()

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        """Yield ``({"input": ids, "positions": positions}, labels)``.

        Every key but ``input`` goes to the model's forward, so there is no other, unless
        ``corpus_ids`` is set for a trainer that takes it out.
        """
        for batch in self._loader:
            inputs = {"input": batch.input_ids}
            if batch.positions is not None:
                inputs["positions"] = batch.positions
            if self._with_corpus_ids:
                inputs[CORPUS_IDS] = batch.corpus_ids
            yield inputs, batch.labels

    @property
    def dataset(self) -> Dataset:
        """What it reads."""
        return self._loader.dataset

    @property
    def consumed_samples(self) -> int:
        """Samples that all ranks together were given: where the run stands."""
        return self._loader.consumed_samples

    def state_dict(self) -> dict[str, Any]:
        """The loader's state: one key, with the same value on every rank."""
        return self._loader.state_dict(more=saved_paces(self._paces))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to where the state was saved.

        Raises:
            ResumeError: The state belongs to other data, or to another configuration.
        """
        saved = parse_state(state_dict)
        self._paces = paces_of_state(state_dict)
        self._set_segments(saved)
        self._loader.resume(saved)
        self._is_placed = True

    def set_consumed_by_global_step(self, step: int, global_batch_size: int) -> None:
        """Move to where ``step`` optimizer steps of ``global_batch_size`` samples end.

        A checkpoint that is loaded afterwards and holds the loader's state moves it again.

        Raises:
            ConfigError: ``step`` is below 0 or ``global_batch_size`` below 1.
        """
        self._loader.set_consumed_by_global_step(step, global_batch_size)
        self._paces = (Pace(global_batch_size=global_batch_size),)
        self._set_segments()
        self._is_placed = True

    def align(self, step: int, *, global_batch_size: int) -> None:
        """Agree with the trainer on where the run stands, before its first batch.

        The place of a loader that was moved, by a state or by hand, must be that of this step;
        with another global batch size than before, it goes on from there. A loader that was not
        moved goes to ``step * global_batch_size``.

        Raises:
            ResumeError: The loader's place is that of another step.
        """
        if not self._is_placed:
            self.set_consumed_by_global_step(step, global_batch_size)
            if step > 0 and is_first_rank():
                logger.warning(
                    "The checkpoint holds no state of the data loader. It continues after step "
                    "%d x %d samples = %d samples.",
                    *(step, global_batch_size, self.consumed_samples),
                )
            return
        paces = self._paces or (Pace(global_batch_size=global_batch_size),)
        paces[-1].check(step, consumed_samples=self.consumed_samples)
        self._paces = changed_at(paces, step, global_batch_size=global_batch_size)
        self._set_segments()
        if self._paces != paces and is_first_rank():
            logger.warning(
                "The global batch size was %d samples until step %d, now it is %d: the data goes "
                "on after the %d samples consumed so far.",
                *(paces[-1].global_batch_size, step, global_batch_size, self.consumed_samples),
            )

    def _set_segments(self, saved: SavedState | None = None) -> None:
        """Find where the segments begin, in the present run or in one that resumes from a state."""
        if not self._segments:
            return
        phases, slot = phases_of(self.dataset), 0
        if saved is not None:
            phases, slot = saved.phases, saved.consumed_samples
        lengths = lengths_of(phases, slot=slot, seq_len=self.dataset.config.seq_length)
        paces = self._paces or (self._begun_pace,)
        self._loader.set_segments(changes_of(self._segments, paces, lengths))

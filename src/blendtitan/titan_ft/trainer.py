"""The trainer of one replica of a fault-tolerant job.

Before each attempt at a step, the replicas agree on who takes part, and each reads its part of the
step's slots. Gradients are sums over all replicas, divided by the labels of the whole step, so the
update is that of one job with as many samples. An attempt that is not committed changes nothing,
and its slots are read again.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torchtitan.components.checkpoint_utils import init_optim_state
from torchtitan.components.checkpointer import BaseCheckpointManager
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.distributed import ParallelDims

from blendtitan.order.replicas import DividedStep, diverged
from blendtitan.settings.replicas import replica_name
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.trainer import BlendTrainer
from blendtitan.titan_ft.checkpoint import ReplicaCheckpointManager
from blendtitan.titan_ft.group import EndedWaitError, Place, ReplicaGroup
from blendtitan.titan_ft.guards import ReplicaGuards
from blendtitan.titan_ft.loader import ReplicaDataLoader
from blendtitan.titan_ft.metrics import ReplicaMetrics
from blendtitan.titan_ft.rank_state import State, load_rank_state, local_part, rank_state
from blendtitan.titan_ft.settings import FaultToleranceSettings
from blendtitan.visible import counted, visible_logger

logger = visible_logger(__name__)

_ROWS, _ATTEMPT = "corpus_losses", "attempt"
"""Keys of the state that a replica receives when it joins, beside those of a checkpoint."""


class NotCommittedError(Exception):
    """A replica failed during a step."""


@dataclass(slots=True)
class Attempt:
    """An attempt at a step."""

    place: Place
    num_samples: int
    """Samples of all replicas so far."""
    tokens_seen: int
    """``ntokens_seen`` before it."""
    row_sums: torch.Tensor | None
    """Losses of corpora since they were logged, before it."""
    losses: list[torch.Tensor] = field(default_factory=list)
    """Losses of this rank's micro batches so far."""
    num_labels: torch.Tensor | None = None
    """Labels of all replicas. None: not exchanged yet."""
    number: int = 0
    """A random number, the same on all replicas that take part."""
    is_diverged: bool = False
    """Whether this replica's state differs from that of most others."""


class ReplicaTrainer(BlendTrainer):
    """Trains as one of several replicas."""

    @dataclass(kw_only=True, slots=True)
    class Config(BlendTrainer.Config):
        """The trainer's configuration, with that of the replicas."""

        fault_tolerance: FaultToleranceSettings = field(default_factory=FaultToleranceSettings)
        metrics: MetricsProcessor.Config = field(default_factory=ReplicaMetrics.Config)
        checkpoint: BaseCheckpointManager.Config = field(
            default_factory=ReplicaCheckpointManager.Config
        )

    def __init__(self, config: Config) -> None:
        self._settings = config.fault_tolerance
        self._place: Place | None = None
        self._attempt: Attempt | None = None
        self._last_attempt = 0
        """Number of the attempt that was committed last. It identifies the state."""
        super().__init__(config)
        assert isinstance(self.dataloader, ReplicaDataLoader)
        assert isinstance(self.checkpointer, ReplicaCheckpointManager)
        assert isinstance(self.metrics_processor, ReplicaMetrics)
        self._data, self._checkpoints = self.dataloader, self.checkpointer
        self._logs = self.metrics_processor
        self._unit = self._data.dp_world_size * config.training.local_batch_size
        for optimizer in self.optimizers.optimizers:
            _make_state(optimizer)
        self.optimizers.register_step_pre_hook(lambda *_: self._commit())

    @property
    def is_in_round(self) -> bool:
        """Whether it makes steps that are committed together later."""
        return self._logs.is_in_round

    def init_distributed(self) -> ParallelDims:
        """Connect the ranks of this replica, and the replica with the others."""
        self.job = replica_name(self._settings.replica_id)
        parallel_dims = super().init_distributed()
        self._group = ReplicaGroup(
            self._settings, device=self.device, save=self._save, load=self._load
        )
        return parallel_dims

    def _save(self) -> State:
        """The state of this rank, for a replica that joins."""
        state = rank_state(self._checkpoints.states, self.model_parts)
        return state | {_ROWS: self._row_sums(), _ATTEMPT: self._last_attempt}

    def _load(self, state: State) -> None:
        """Load the state of the same rank of another replica."""
        self._last_attempt = state.pop(_ATTEMPT)
        sums = state.pop(_ROWS)
        if self._rows is not None:
            self._rows.losses.sums.copy_(sums)
        load_rank_state(state, self._checkpoints.states, self.model_parts)
        logger.info(
            "This replica continues with the state of another one, after %d samples.",
            self._data.consumed_samples,
        )

    def train(self) -> None:
        """Train to the last step."""
        super().train()
        if self._place is not None:
            self._group.leave()

    def close(self) -> None:
        """Close files, and leave the group."""
        super().close()
        self._group.close()

    def train_step(
        self, data_iterator: Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]
    ) -> None:
        """Make one optimizer step, in as many attempts as it takes."""
        if self._guards is not None and not self.is_in_round:
            self._guards.before_step()
        while not self._try_step(data_iterator):
            pass

    def _try_step(
        self, data_iterator: Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]
    ) -> bool:
        """Whether the step is made: committed here, or by the others, whose state was loaded."""
        attempt = self._begin()
        if attempt is None:
            return self._group.committed_steps == self.step
        try:
            super().train_step(data_iterator)
        except NotCommittedError:
            self._undo(attempt)
            return False
        return True

    def _agreed(self) -> Place | None:
        """Agree on who takes part. None: there is no step to make."""
        guards = self._guards
        reason = guards.reason_to_end if isinstance(guards, ReplicaGuards) else lambda: 0
        try:
            place = self._group.begin(self.step - 1, reason)
        except EndedWaitError as ended:
            self._group.close()  # so that no replica waits for this one
            assert isinstance(guards, ReplicaGuards)
            guards.end_waiting(ended.reason)
        if place is None:
            return None
        if self._group.committed_steps == self.step:  # the last step, which this replica missed
            self._lead(False)
            return None
        self._lead(place.replica == 0)
        if not self._group.has_enough(place):
            self._wait_for_others(place)
            return None
        return place

    def _begin(self) -> Attempt | None:
        """Agree on who takes part, and prepare to read. None: there is nothing to read."""
        place = self._agreed()
        if place is None:
            return None
        step = self._divided(place)
        self.gradient_accumulation_steps = len(step.units_of(place.replica))
        if not self.gradient_accumulation_steps:  # a replica that is gone still counts
            self._group.pass_over("more replicas than units")
            return None
        samples = step.num_units * self._unit
        self._attempt = Attempt(place, samples, self.ntokens_seen, self._row_sums())
        self._data.begin_step(self.step, place)
        return self._attempt

    def _wait_for_others(self, place: Place) -> None:
        if place != self._place:
            self._place = place
            logger.info(
                "Step %d waits for other replicas: %s, and fault_tolerance.min_replica_size is %d.",
                self.step,
                counted(place.num_replicas, "replica takes part", "replicas take part"),
                self._settings.min_replica_size,
            )
        self._group.pass_over("too few replicas")

    def _divided(self, place: Place) -> DividedStep:
        step = self._data.divide(self.step, place)
        if place != self._place:
            self._place = place
            logger.info(
                "From step %d on, %d of %d replicas take part, with %d samples per step.",
                *(self.step, place.num_replicas, self._settings.group_size),
                step.num_units * self._unit,
            )
        return step

    def forward_backward_step(self, **arguments: Any) -> torch.Tensor:
        """Run one pass through the model; in the last one of a step, sum over the replicas."""
        attempt = self._attempt
        assert attempt is not None
        if attempt.num_labels is None:
            attempt.num_labels = self._exchange(attempt, arguments["global_valid_tokens"])
        loss = super().forward_backward_step(
            **arguments | {"global_valid_tokens": attempt.num_labels}
        )
        attempt.losses.append(loss.detach().clone())
        if len(attempt.losses) < self.gradient_accumulation_steps:
            return loss
        return self._sum_over_replicas(attempt)

    def _exchange(self, attempt: Attempt, num_labels: torch.Tensor) -> torch.Tensor:
        """The labels of all replicas. Their states are compared on the way."""
        numbers = torch.zeros(2 + attempt.place.num_replicas, dtype=torch.int64)
        numbers[0], numbers[1] = num_labels, secrets.randbits(40)
        numbers[2 + attempt.place.replica] = self._last_attempt
        numbers = numbers.to(self.device)
        self._group.sum([numbers])
        if self._group.has_failed():
            return num_labels
        total, attempt.number, *states = numbers.tolist()
        if others := diverged(states):
            attempt.is_diverged = attempt.place.replica in others
            self._group.fail("replicas committed different attempts at the last step")
        return torch.tensor(total, device=self.device)

    @torch.no_grad()
    def _sum_over_replicas(self, attempt: Attempt) -> torch.Tensor:
        """Sum gradients and losses. Return the rest of the loss of the step.

        TorchTitan adds it to the losses of the earlier micro batches.
        """
        loss = torch.stack(attempt.losses).sum()
        earlier = loss - attempt.losses[-1]
        self._sum_with_rows(attempt, [*self._gradients(), loss])
        return loss - earlier

    def _sum_with_rows(self, attempt: Attempt, summed: list[torch.Tensor]) -> None:
        """Sum tensors over the replicas, and the losses of corpora since the attempt began."""
        if self._rows is not None and attempt.row_sums is not None:
            self._rows.losses.sums.sub_(attempt.row_sums)
            summed.append(self._rows.losses.sums)
        self._group.sum(summed)
        if self._rows is not None and attempt.row_sums is not None:
            self._rows.losses.sums.add_(attempt.row_sums)

    def _gradients(self) -> Iterator[torch.Tensor]:
        for part in self.model_parts:
            for parameter in part.parameters():
                grad = parameter.grad
                if grad is not None:
                    yield local_part(grad)

    def _row_sums(self) -> torch.Tensor | None:
        return None if self._rows is None else self._rows.losses.sums.clone()

    def _commit(self) -> None:
        """Called before the optimizer changes anything.

        Raises:
            NotCommittedError: A replica failed.
        """
        attempt = self._attempt
        assert attempt is not None
        self._commit_attempt(attempt, num_steps=1)

    def _commit_attempt(self, attempt: Attempt, *, num_steps: int) -> None:
        if not self._group.commit(self.step):
            raise NotCommittedError
        self._last_attempt = attempt.number
        self._data.end_steps(num_steps)
        mesh = self.parallel_dims.get_optional_mesh("loss")
        tokens = attempt.num_samples * self.config.training.seq_len
        self.ntokens_seen = attempt.tokens_seen + tokens // (1 if mesh is None else mesh.size())

    def _new_guards(self) -> ReplicaGuards:
        return ReplicaGuards(self)

    def _lead(self, leads: bool) -> None:
        self._checkpoints.leads = leads
        self._logs.lead(leads)

    def set_micro_batches(self, loader: BlendCorpusDataLoader, step: int) -> None:
        """Leave the number of micro batches alone: who takes part in a step decides it."""

    def _undo(self, attempt: Attempt) -> None:
        self._data.end_steps(0)
        self.ntokens_seen = attempt.tokens_seen
        if self._rows is not None and attempt.row_sums is not None:
            self._rows.losses.sums.copy_(attempt.row_sums)
        is_diverged = torch.tensor(int(attempt.is_diverged), device=self.device)
        dist.all_reduce(is_diverged, dist.ReduceOp.MAX)
        if is_diverged:
            self._lead(False)
            self._group.forget()
        logger.warning(
            "Step %d was not committed, because a replica failed. Its samples are read again.",
            self.step,
        )


def _make_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the state of an optimizer, into which that of another replica is loaded."""
    init_optim_state(optimizer)
    for state in optimizer.state.values():
        if "step" in state:  # TorchTitan makes it by a step without gradients, which counts
            state["step"].zero_()

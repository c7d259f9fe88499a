"""The trainer of a replica that exchanges changes of the model every few steps: DiLoCo.

The steps between two exchanges are a *round*. In a round, each replica trains on its part of each
step by itself. Then the mean of the replicas' changes is the gradient of an outer optimizer. A
round is committed as a whole. One that is not leaves no trace: model, optimizer and schedule are
those of its beginning again, and its slots are read again.

Source: DiLoCo, https://arxiv.org/abs/2311.08105, with the outer optimizer of TorchTitan's
experiment. Local SGD is the same with the mean itself as the result.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from blendtitan.titan.trainer import BlendTrainer
from blendtitan.titan_ft.rank_state import local_part
from blendtitan.titan_ft.trainer import Attempt, NotCommittedError, ReplicaTrainer

_OUTER = {"diloco": (0.7, 0.9), "local_sgd": (1.0, 0.0)}
"""Learning rate and momentum of the outer optimizer."""

_KEPT = ("optimizer", "lr_scheduler", "train_state")
"""Parts of a checkpoint that a round changes, beside the model and the position of the data."""


class OuterOptimizer:
    """Gradient descent with Nesterov momentum on the changes of the replicas."""

    def __init__(self, parameters: Mapping[str, torch.Tensor], *, lr: float, momentum: float):
        self._parameters, self._lr, self._momentum = parameters, lr, momentum
        self._buffers = {name: torch.zeros_like(each) for name, each in parameters.items()}

    @torch.no_grad()
    def step(self, before: Mapping[str, torch.Tensor], change: Mapping[str, torch.Tensor]) -> None:
        """Update the parameters.

        Args:
            before: The parameters at the beginning of the round.
            change: How far the replicas moved from there, against the direction of the update.
        """
        for name, parameter in self._parameters.items():
            buffer = self._buffers[name].mul_(self._momentum).add_(change[name])
            update = change[name] + self._momentum * buffer
            parameter.copy_(before[name] - self._lr * update)

    def state_dict(self) -> dict[str, Any]:
        """The momentum of each parameter."""
        return dict(self._buffers)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the momentum of a checkpoint, or of another replica."""
        for name, buffer in self._buffers.items():
            buffer.copy_(state_dict[name])


@dataclass(frozen=True, slots=True)
class _Round:
    """A round that was begun."""

    first: int
    """Its first step."""
    last: int
    parameters: dict[str, torch.Tensor]
    """The model before it."""
    others: dict[str, Any]
    """``_KEPT`` before it."""


class SemiSyncTrainer(ReplicaTrainer):
    """Trains as one of several replicas, which exchange changes of the model every few steps."""

    @dataclass(kw_only=True, slots=True)
    class Config(ReplicaTrainer.Config):
        """The trainer's configuration, with that of the replicas."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._round: _Round | None = None
        self._parameters = {
            f"{number}.{name}": local_part(parameter.detach())
            for number, part in enumerate(self.model_parts)
            for name, parameter in part.named_parameters()
        }
        lr, momentum = _OUTER[config.fault_tolerance.semi_sync_method or ""]
        self._outer = OuterOptimizer(self._parameters, lr=lr, momentum=momentum)
        if momentum:
            self._checkpoints.states["outer_optimizer"] = self._outer
        self.optimizers.register_step_post_hook(lambda *_: self._end_of_step())

    def train_step(
        self, data_iterator: Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]
    ) -> None:
        """Make one step. At the end of a round, make it again until it is committed."""
        last = self.step
        super().train_step(data_iterator)
        while self.step < last:  # the round began again
            self.step += 1
            super().train_step(data_iterator)

    def _try_step(
        self, data_iterator: Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]
    ) -> bool:
        if self._round is None:
            if self._begin() is None:
                return self._group.committed_steps == self.step
            self._begin_round()
        try:
            self._make_step(data_iterator)
        except NotCommittedError:
            assert self._attempt is not None
            self._undo(self._attempt)
            return False
        return True

    def _begin_round(self) -> None:
        length = self._settings.sync_steps
        last = -(-self.step // length) * length
        parameters = {name: each.clone() for name, each in self._parameters.items()}
        others = {name: self._checkpoints.states[name].state_dict() for name in _KEPT}
        steps = self.step, min(last, max(self.step, self.config.training.steps))
        self._round = _Round(*steps, parameters, copy.deepcopy(others))

    def _make_step(
        self, data_iterator: Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]
    ) -> None:
        attempt, round_ = self._attempt, self._round
        assert attempt is not None
        assert round_ is not None
        if self.step > round_.first:
            step = self._data.divide(self.step, attempt.place)
            self.gradient_accumulation_steps = len(step.units_of(attempt.place.replica))
            if not self.gradient_accumulation_steps:  # a replica that is gone still counts
                self._group.pass_over("more replicas than units")
                raise NotCommittedError
            attempt.num_samples += step.num_units * self._unit
        attempt.losses.clear()
        self._logs.is_in_round = self.step < round_.last
        BlendTrainer.train_step(self, data_iterator)

    def forward_backward_step(self, **arguments: Any) -> torch.Tensor:
        """Run one pass through the model; in the last one of a round, sum the losses."""
        attempt = self._attempt
        assert attempt is not None
        loss = BlendTrainer.forward_backward_step(self, **arguments)
        attempt.losses.append(loss.detach().clone())
        if self.is_in_round or len(attempt.losses) < self.gradient_accumulation_steps:
            return loss
        return self._loss_of_all(attempt, arguments["global_valid_tokens"])

    @torch.no_grad()
    def _loss_of_all(self, attempt: Attempt, num_labels: torch.Tensor) -> torch.Tensor:
        """The rest of the loss of the round's last step, as ``_sum_over_replicas`` returns it."""
        earlier = torch.stack(attempt.losses).sum() - attempt.losses[-1]
        all_labels = self._exchange(attempt, num_labels)
        loss = torch.stack(attempt.losses).sum() * num_labels / all_labels
        self._sum_with_rows(attempt, [loss])
        return loss - earlier

    def _commit(self) -> None:
        """Called before the optimizer changes anything, which here it may."""

    def _end_of_step(self) -> None:
        """Called after the optimizer's step; at the end of a round, exchange the changes.

        Raises:
            NotCommittedError: A replica failed.
        """
        attempt, round_ = self._attempt, self._round
        assert attempt is not None
        assert round_ is not None
        if self.is_in_round:
            return
        changes = {name: round_.parameters[name] - each for name, each in self._parameters.items()}
        self._group.sum(changes.values())
        self._commit_attempt(attempt, num_steps=self.step - round_.first + 1)
        for change in changes.values():
            change.div_(attempt.place.num_replicas)
        self._outer.step(round_.parameters, changes)
        self._round = None

    @torch.no_grad()
    def _undo(self, attempt: Attempt) -> None:
        """Return to the beginning of the round."""
        assert self._round is not None
        for name, parameter in self._parameters.items():
            parameter.copy_(self._round.parameters[name])
        for name, state in self._round.others.items():
            self._checkpoints.states[name].load_state_dict(state)
        self._round, self._logs.is_in_round = None, False
        super()._undo(attempt)

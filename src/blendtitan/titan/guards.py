"""Guards of a run, from its first step on: they end it early and keep its checkpoints usable.

Imported after the first batch.
"""

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torchtitan.distributed import utils as dist_utils
from torchtitan.tools import utils

from blendtitan.claims.held import release_claim
from blendtitan.errors import LossError
from blendtitan.settings.guards import GuardSettings
from blendtitan.settings.wall_time import job_end
from blendtitan.stop_signals import STOP
from blendtitan.titan.checkpoint import BlendCheckpointManager
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.slow_steps import SlowSteps
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.titan.trainer import BlendTrainer

logger = visible_logger(__name__)

_ASK_SECONDS = 1.0
"""Time between two questions to the other ranks, in steps of less than that."""

_CLOSE_TIME = timedelta(minutes=10)
"""Time for which ranks wait for each other's loggers, which may upload what they hold."""

_REASONS = ("", "The wall time is about to end", "Received SIGUSR1", "Received SIGTERM")
"""Why a run ends. Ranks exchange the index of the reason."""


class StoppedRun(KeyboardInterrupt):
    """The run has saved a checkpoint and ends. The entry point ends with the status of Ctrl-C."""


class Guards:
    """Ends the run after a signal, before the end of its job, or when its losses are not finite."""

    def __init__(self, trainer: "BlendTrainer") -> None:
        self._trainer = trainer
        self._first_step = trainer.step
        settings: GuardSettings = trainer.config.guards  # pyright: ignore[reportAttributeAccessIssue]
        self._end, told = job_end(settings, started=STOP.started)
        if told and dist.get_rank() == 0:
            at = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(self._end))
            logger.info("The run will save a checkpoint and end at %s (%s).", at, told)
        self._slow_steps = SlowSteps(trainer) if dist.get_rank() == 0 else None
        self._question = Question(trainer.device) if dist.get_world_size() > 1 else None
        self.losses = Losses(trainer.device, most=settings.max_nonfinite_losses)
        if isinstance(trainer.checkpointer, BlendCheckpointManager):
            trainer.checkpointer.may_save = self.may_save
        # A signal is noted from now on; before, when there is nothing to save, it ends the process.
        # All ranks begin together: otherwise one might wait in the step for another that has ended.
        self._meet()
        STOP.is_noted_only = settings.save_on_signal

    def __enter__(self) -> None:
        self.before_step()
        loader = self._trainer.dataloader
        if isinstance(loader, BlendCorpusDataLoader):
            self._trainer.set_micro_batches(loader, self._trainer.step)
        if self._slow_steps is not None:
            self._slow_steps.begin()

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self._slow_steps is not None:
            self._slow_steps.end()
        if error is None:
            self.after_step()
        elif isinstance(error, RuntimeError) and "Loss is not finite" in str(error):
            # TorchTitan has looked only at the losses that it logs.
            step = self._trainer.step
            first = step - self._most_on_any_rank(self.losses.in_a_row())
            raise not_finite(self._trainer, first, step) from error

    def before_step(self) -> None:
        """End if a signal came while the last step was saved or validated."""
        trainer, last = self._trainer, self._trainer.step - 1
        if last < self._first_step:
            return  # the guards have just begun
        took_long = self._saved(last) or (
            trainer.config.validator.enable and trainer.validator.should_validate(last)
        )
        if self._question is None:
            reason = self._reason()
        else:
            self._question.ask(self._reason(), trainer.step, now=took_long)
            reason = self._question.answer() if took_long else 0
        if reason:
            trainer.step = last  # the step of the checkpoint
            self._stop(reason)

    def after_step(self) -> None:
        """End if it is asked for, or if too many losses were not finite."""
        step = self._trainer.step
        first = self.losses.first_of_too_many(step)
        if first is not None:
            raise not_finite(self._trainer, first, step - 1)
        if self._question is not None and step == self._first_step:  # which may take long
            self._question.ask(self._reason(), step, now=True)
        reason = self._reason() if self._question is None else self._question.answer()
        if reason and step < self._trainer.config.training.steps:
            self._stop(reason)

    def may_save(self, step: int) -> bool:
        """Whether loss and weights after the step are finite on all ranks. A collective operation.

        Raises:
            LossError: They are not, and it is the last step.
        """
        if not self.losses.most:
            return True
        parts = [part for model in self._trainer.model_parts for part in model.parameters()]
        bad = self.losses.latest() | ~torch.isfinite(_largest(parts))
        if dist.get_world_size() > 1:
            bad = bad.to(torch.int32)
            dist.all_reduce(bad, dist.ReduceOp.MAX)
        if not bad:
            return True
        if step == self._trainer.config.training.steps:
            raise not_finite(self._trainer, step, step)
        if dist.get_rank() == 0:
            logger.warning(
                "step-%d is not saved: its loss or its weights are NaN or infinite.", step
            )
        return False

    def _reason(self) -> int:
        """Why this rank asks to end, as an index of ``_REASONS``; 0 if it does not."""
        if STOP.received and STOP.is_noted_only:
            return _REASONS.index(f"Received {STOP.received}")
        return int(time.time() >= self._end)

    def _most_on_any_rank(self, number: int) -> int:
        """The largest number on the ranks that end with the same error of TorchTitan."""
        dims = self._trainer.parallel_dims
        mesh = dims.get_optional_mesh("loss") if dims.dp_cp_enabled else None
        return int(dist_utils.dist_max(torch.tensor(number, device=self._trainer.device), mesh))

    def _saved(self, step: int) -> bool:
        checkpointer = self._trainer.checkpointer
        return isinstance(checkpointer, BlendCheckpointManager) and checkpointer.saved_step == step

    def _stop(self, reason: int) -> NoReturn:
        """Save a checkpoint, unless there is one of this step, and end the run."""
        trainer, checkpointer = self._trainer, self._trainer.checkpointer
        if dist.get_rank() == 0:
            logger.warning("%s: %s.", _REASONS[reason], self._ending(trainer.step))
        if not self._saved(trainer.step):
            checkpointer.interval = 1  # pyright: ignore[reportAttributeAccessIssue]
            checkpointer.save(trainer.step)
        checkpointer.maybe_wait_for_saving()
        self._close()
        raise StoppedRun

    def _ending(self, step: int) -> str:
        checkpointer = self._trainer.checkpointer
        if not checkpointer.enable:
            return "no checkpoint is saved, because checkpoint.enable = false"
        if self._trainer.config.checkpoint.load_only:
            return "no checkpoint is saved, because checkpoint.load_only = true"
        if self._saved(step):
            return f"the run ends with the checkpoint of step {step}"
        if isinstance(checkpointer, BlendCheckpointManager) and not checkpointer.leads:
            return f"this replica ends after step {step}; another one saves the checkpoint"
        return f"saving a checkpoint of step {step} before the run ends"

    def _close(self) -> None:
        """Close files and loggers, and give up the claim on the run's folder, on all ranks.

        None leaves before the others are ready: an agent, or Slurm, kills those that remain.
        """
        dist.set_timeout(_CLOSE_TIME, None)  # pyright: ignore[reportAttributeAccessIssue]
        self._trainer.close()
        release_claim()
        self._meet()

    def _meet(self) -> None:
        """Wait for the other ranks."""
        if self._question is not None:
            self._question.ask(0, self._trainer.step, now=True)
            self._question.answer()


class Question:
    """Why any rank asks to end, found out by all ranks at the same step.

    The ranks exchange the reason and the time of a step, at most every step and about once a
    second. The exchange overlaps with the step: nothing waits for it before the step ends.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_cuda = device.type != "cpu"
        self._answer = torch.zeros(2, dtype=torch.float32, pin_memory=self._is_cuda)
        self._stream = utils.device_module.Stream() if self._is_cuda else None
        self._next = 0
        self._pending: Any = None
        self._step_begun = -1
        self._began_at = float("-inf")
        self._step_seconds = float("inf")

    def ask(self, reason: int, step: int, *, now: bool) -> None:
        """Begin an exchange, if one is due at this step."""
        self.answer()  # to the question of a step that was given up
        if step > self._step_begun:  # it may also be asked after a step
            began_at, self._began_at = self._began_at, time.perf_counter()
            self._step_begun, self._step_seconds = step, self._began_at - began_at
        if step < self._next and not now:
            return
        values = torch.tensor([float(reason), self._step_seconds])
        if self._stream is None:
            self._answer.copy_(values)
            self._pending = dist.all_reduce(self._answer, dist.ReduceOp.MAX, async_op=True)
        else:
            self._stream.wait_stream(utils.device_module.current_stream())
            with utils.device_module.stream(self._stream):
                values = values.to(self._device)
                dist.all_reduce(values, dist.ReduceOp.MAX)
                self._answer.copy_(values, non_blocking=True)
                self._pending = self._stream.record_event()
        self._step = step

    def answer(self) -> int:
        """The largest reason of all ranks; 0 if no exchange is pending."""
        if self._pending is None:
            return 0
        if self._stream is None:
            self._pending.wait()
        else:
            self._pending.synchronize()
        self._pending = None
        reason, seconds = self._answer.tolist()
        self._next = self._step + min(1000, max(1, int(_ASK_SECONDS / max(seconds, 1e-3))))
        return int(reason)


class Losses:
    """Counts the steps in a row whose loss is not finite on this rank.

    A loss is copied to the host while the next step is computed, and looked at after that.
    """

    def __init__(self, device: torch.device, *, most: int) -> None:
        self.most = most
        self._bad = torch.zeros((), dtype=torch.bool, device=device)
        self._is_cuda = device.type != "cpu"
        self._host = torch.zeros((), dtype=torch.bool, pin_memory=self._is_cuda)
        self._copied: Any = None
        self._in_a_row = 0
        self._host_of_step = self._bad.clone()

    def add(self, loss: torch.Tensor) -> None:
        """Look at the loss of a micro batch."""
        if self.most:
            loss = loss.detach()
            loss = loss.to_local() if isinstance(loss, DTensor) else loss
            self._bad |= ~torch.isfinite(loss).all()

    def latest(self) -> torch.Tensor:
        """Whether the loss of the present step is not finite. On the device."""
        return self._host_of_step

    def in_a_row(self) -> int:
        """How many steps in a row, up to the last one that ended, had a loss that is not finite."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._in_a_row + 1 if self._host else 0

    def first_of_too_many(self, step: int) -> int | None:
        """Note the end of a step. The first of too many steps that ended before it, or None."""
        if not self.most:
            return None
        self._in_a_row = self.in_a_row()
        self._host_of_step = self._bad.clone()
        self._bad.zero_()
        self._host.copy_(self._host_of_step, non_blocking=True)
        self._copied = utils.device_module.Event() if self._is_cuda else None
        if self._copied is not None:
            self._copied.record()
        return step - self._in_a_row if self._in_a_row >= self.most else None


def _largest(parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    parts = [p.to_local() if isinstance(p, DTensor) else p for p in parameters]
    parts = [part.detach() for part in parts if part.numel()]
    return torch.nn.utils.get_total_norm(parts, norm_type=float("inf"), foreach=True)


def not_finite(trainer: "BlendTrainer", first: int, last: int) -> LossError:
    """The error for steps whose losses are not finite."""
    losses = f"the loss of step {first} is"
    if first != last:
        losses = f"the losses of steps {first} to {last} are"
    logged = f"Last finite losses: {trainer.logged_losses}. " if trainer.logged_losses else ""
    return LossError(
        f"{losses} not finite. {logged}No checkpoint of {'it' if first == last else 'them'} was "
        f"saved.",
        f"To compare the samples of step {first} with earlier ones: blendtitan explain "
        f"{trainer.config.dump_folder} --around {first}",
        "The same command resumes from the last checkpoint, if any, and reads the same samples "
        "again: lower optimizer.lr, correct the data, or leave the samples out.",
    )

"""Guards of a run, from its first step on: they end it early and keep its checkpoints usable.

Imported after the first step.
"""

import os
import time
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torchtitan.tools import utils

from blendtitan.claims.held import release_claim
from blendtitan.errors import LossError
from blendtitan.settings.guards import GuardSettings
from blendtitan.stop_signals import STOP
from blendtitan.titan.checkpoint import BlendCheckpointManager
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.shared_catalog import from_first_rank
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.titan.trainer import BlendTrainer

logger = visible_logger(__name__)

_ASK_SECONDS = 1.0
"""Time between two questions to the other ranks, in steps of less than that."""


class StoppedRun(KeyboardInterrupt):
    """The run has saved a checkpoint and ends. The entry point ends with the status of Ctrl-C."""


class Guards:
    """Ends the run after a signal, before the end of its job, or when its losses are not finite."""

    def __init__(self, trainer: "BlendTrainer") -> None:
        self._trainer = trainer
        settings: GuardSettings = trainer.config.guards  # pyright: ignore[reportAttributeAccessIssue]
        self._end, told = job_end(settings)
        if told and dist.get_rank() == 0:
            at = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(self._end))
            logger.info("A checkpoint is saved, and the run ends, at %s (%s).", at, told)
        STOP.is_noted_only = settings.save_on_signal
        self._question = Question(trainer.device) if dist.get_world_size() > 1 else None
        self.losses = Losses(trainer.device, most=settings.max_nonfinite_losses)
        if isinstance(trainer.checkpointer, BlendCheckpointManager):
            trainer.checkpointer.may_save = self.may_save

    def __enter__(self) -> None:
        self.before_step()
        loader = self._trainer.dataloader
        if isinstance(loader, BlendCorpusDataLoader):
            self._trainer.set_micro_batches(loader, self._trainer.step)

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if error is None:
            self.after_step()
        elif isinstance(error, RuntimeError) and "Loss is not finite" in str(error):
            raise not_finite(self._trainer, self._trainer.step, self._trainer.step) from error

    def before_step(self) -> None:
        """End if a signal came while the last step was saved or validated."""
        trainer, last = self._trainer, self._trainer.step - 1
        took_long = self._saved(last) or (
            trainer.config.validator.enable and trainer.validator.should_validate(last)
        )
        if self._question is None:
            stops = self._is_asked()
        else:
            self._question.ask(self._is_asked(), trainer.step, now=took_long)
            stops = took_long and self._question.answer()
        if stops:
            trainer.step = last  # the step of the checkpoint
            self._stop()

    def after_step(self) -> None:
        """End if it is asked for, or if too many losses were not finite."""
        step = self._trainer.step
        first = self.losses.first_of_too_many(step)
        if first is not None:
            raise not_finite(self._trainer, first, step - 1)
        stops = self._is_asked() if self._question is None else self._question.answer()
        if stops and step < self._trainer.config.training.steps:
            self._stop()

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

    def _is_asked(self) -> bool:
        return bool(STOP.received and STOP.is_noted_only) or time.time() >= self._end

    def _saved(self, step: int) -> bool:
        checkpointer = self._trainer.checkpointer
        return isinstance(checkpointer, BlendCheckpointManager) and checkpointer.saved_step == step

    def _stop(self) -> NoReturn:
        """Save a checkpoint, unless there is one of this step, and end the run."""
        trainer, checkpointer = self._trainer, self._trainer.checkpointer
        is_first = dist.get_rank() == 0
        ends = time.time() >= self._end
        reason = STOP.received or ("the wall time ends" if ends else "another rank is to end")
        if not checkpointer.enable or trainer.config.checkpoint.load_only:
            if is_first:
                key = "load_only = true" if checkpointer.enable else "enable = false"
                logger.warning("%s: no checkpoint is saved, because checkpoint.%s.", reason, key)
            raise StoppedRun
        if is_first:
            logger.warning("%s: saves a checkpoint of step %d and ends.", reason, trainer.step)
        if not self._saved(trainer.step):
            checkpointer.interval = 1  # pyright: ignore[reportAttributeAccessIssue]
            checkpointer.save(trainer.step)
        checkpointer.maybe_wait_for_saving()
        from_first_rank(self._finish)  # when other ranks end, an agent may end rank 0
        raise StoppedRun

    def _finish(self) -> None:
        self._trainer.checkpointer.close()
        release_claim()


class Question:
    """Whether any rank asks to end, found out by all ranks at the same step.

    The ranks exchange one number, at most every step and about once a second. The exchange overlaps
    with the step: nothing waits for it before the step ends.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_cuda = device.type != "cpu"
        self._answer = torch.zeros(2, dtype=torch.float32, pin_memory=self._is_cuda)
        self._stream = utils.device_module.Stream() if self._is_cuda else None
        self._next = 0
        self._pending: Any = None
        self._began = float("-inf")  # of the last step

    def ask(self, is_asked: bool, step: int, *, now: bool) -> None:
        """Begin an exchange, if one is due at this step."""
        began, self._began = self._began, time.perf_counter()
        if step < self._next and not now:
            return
        values = torch.tensor([float(is_asked), self._began - began])
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

    def answer(self) -> bool:
        """The answer of all ranks; False if none is pending."""
        if self._pending is None:
            return False
        if self._stream is None:
            self._pending.wait()
        else:
            self._pending.synchronize()
        self._pending = None
        asked, seconds = self._answer.tolist()
        self._next = self._step + min(1000, max(1, int(_ASK_SECONDS / max(seconds, 1e-3))))
        return asked > 0


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

    def first_of_too_many(self, step: int) -> int | None:
        """Note the end of a step. The first of too many steps that ended before it, or None."""
        if not self.most:
            return None
        if self._copied is not None:
            self._copied.synchronize()
        self._in_a_row = self._in_a_row + 1 if self._host else 0
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


def job_end(settings: GuardSettings) -> tuple[float, str]:
    """When the run must end, in seconds since 1970, and what says so; infinity if nothing does."""
    names = ("BLENDTITAN_END_TIME", "SLURM_JOB_END_TIME") if settings.save_on_signal else ()
    ends = {name: float(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()}
    if settings.wall_time_minutes is not None:
        ends = {"guards.wall_time_minutes": STOP.started + 60 * settings.wall_time_minutes}
    name = min(ends, key=lambda name: ends[name], default=None)
    if name is None:
        return float("inf"), ""
    return ends[name] - settings.margin_seconds, f"{settings.margin_seconds:.0f} s before {name}"


def not_finite(trainer: "BlendTrainer", first: int, last: int) -> LossError:
    """The error for steps whose losses are not finite."""
    steps = f"step {first} is" if first == last else f"steps {first} to {last} are"
    saved = "Training resumes from the last checkpoint, which was saved before."
    text = f"Last finite losses: {trainer.logged_losses}. " if trainer.logged_losses else ""
    return LossError(
        f"the losses of {steps} not finite. {text}No checkpoint of these steps was saved.",
        f"The samples of the step: blendtitan explain {trainer.config.dump_folder} --around "
        f"{first}",
        f"{saved} With the same data it meets the same samples: lower optimizer.lr, correct the "
        f"data, or leave the samples out.",
    )

"""A line in the log while a step takes long, so that it is not taken for one that hangs."""

import threading
import time
import weakref
from typing import TYPE_CHECKING

from blendtitan.titan import upstream
from blendtitan.visible import counted, visible_logger

if TYPE_CHECKING:
    from blendtitan.titan.trainer import BlendTrainer

logger = visible_logger(__name__)

FIRST_S = 30.0
"""Seconds of a step before the first line. Each further line follows after twice the time."""

_SLOWER = 3  # than the slowest step before
_POLL_S = 1.0


class SlowSteps:
    """Logs how long a step has taken so far, if it is the first one or slower than the others."""

    def __init__(self, trainer: "BlendTrainer") -> None:
        self._trainer = weakref.ref(trainer)  # whose end is that of the thread
        self._begun: float | None = None
        self._due = self._usual = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self) -> None:
        """Note that a step begins."""
        self._due = max(FIRST_S, _SLOWER * self._usual)
        self._begun = time.monotonic()

    def end(self) -> None:
        """Note that it has ended."""
        begun, self._begun = self._begun, None
        if begun is not None:
            self._usual = max(self._usual, time.monotonic() - begun)

    def _watch(self) -> None:
        while (trainer := self._trainer()) is not None:
            begun = self._begun
            seconds = 0 if begun is None else time.monotonic() - begun
            if begun is not None and seconds >= self._due:
                self._due = 2 * seconds
                logger.info("%s", _line(trainer, seconds, is_first=not self._usual))
            del trainer
            time.sleep(_POLL_S)


def _line(trainer: "BlendTrainer", seconds: float, *, is_first: bool) -> str:
    sizes = upstream.sizes_of(trainer.config)
    micro_batches = trainer.gradient_accumulation_steps
    line = (
        f"Step {trainer.step} is not finished after {seconds:.0f} s: each process trains on "
        f"{counted(sizes.local_batch_size * micro_batches, 'sample')} of {sizes.seq_len:,} tokens "
        f"per step."
    )
    if upstream.has_accelerator():
        return line
    cpu, device = upstream.CpuDevice, trainer.device
    used = cpu.memory_stats(device)["active_bytes.all.peak"] / 1e9
    total = cpu.get_device_properties(device).total_memory / 1e9
    line += f" This process has used up to {used:.1f} of {total:.1f} GB of memory."
    if not is_first:  # others with these settings were fast
        return line
    return (
        f"{line} If that is too slow or too much, end the run (Ctrl-C twice) and lower "
        f"training.seq_len, training.local_batch_size or training.global_batch_size."
    )

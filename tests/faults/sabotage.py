"""What a rank does to itself before it trains. Each is the entry of every rank of a run."""

import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from blendtitan.dataset.blended import BlendedDataset
from blendtitan.stop_signals import REPEAT_SECONDS
from blendtitan.titan import shared_catalog
from blendtitan.titan.checkpoint import BlendCheckpointManager
from tests.titan.launched import train


def _rank() -> int:
    return int(os.environ["RANK"])


def fails_between_broadcasts(*arguments: str) -> None:
    """Rank 0 fails after it has broadcast the size of the catalog."""
    broadcast = dist.broadcast
    sent: list[int] = []

    def failing(*args: Any, **kwargs: Any) -> None:
        sent.append(1)
        if len(sent) == 2:
            raise RuntimeError("fails between broadcasts")
        broadcast(*args, **kwargs)

    if _rank() == 0:
        shared_catalog.dist.broadcast = failing  # pyright: ignore
    train(*arguments)


def killed_at_start(*arguments: str) -> None:
    """Rank 0 is killed while it reads the catalog and the others wait for it."""

    def die(*_: object, **__: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    shared_catalog.read_catalog = die
    train(*arguments)


def waits_for_ever(*arguments: str) -> None:
    """Rank 0 hangs while it reads the catalog, as on a file system that does not answer."""

    def hang(*_: object, **__: object) -> NoReturn:
        time.sleep(10**6)
        raise AssertionError

    shared_catalog.read_catalog = hang
    train(*arguments)


def loses_a_thread(*arguments: str) -> None:
    """A reading thread of rank 1 fails, some batches ahead of the step."""
    read = BlendedDataset.read
    reads: list[int] = []

    def failing(self: BlendedDataset, *args: Any) -> Any:
        reads.append(1)
        if len(reads) > 4:
            raise OSError(errno.EIO, "the disk fails")
        return read(self, *args)

    if _rank() == 1:
        BlendedDataset.read = failing  # pyright: ignore
    train(*arguments)


def diverges(*arguments: str, from_step: int = 3) -> None:
    """The loss of rank 1 is not a number from a step on."""
    from torchtitan.trainer import Trainer

    step = Trainer.forward_backward_step

    def diverging(self: Trainer, **kwargs: Any) -> Any:
        return step(self, **kwargs) * (float("nan") if self.step >= from_step else 1)

    if _rank() == 1:
        Trainer.forward_backward_step = diverging
    train(*arguments)


def diverges_at_once(*arguments: str) -> None:
    """The loss of rank 1 is not a number in any step."""
    diverges(*arguments, from_step=1)


def begins_slowly(*arguments: str) -> None:
    """The first step takes three seconds, as if it were compiled. A file tells of its begin."""
    from torchtitan.trainer import Trainer

    step = Trainer.forward_backward_step

    def slow(self: Trainer, **kwargs: Any) -> Any:
        if self.step == 1:
            Path(f"{os.environ['RECORD']}_in_first_step").touch()
            time.sleep(3)
        return step(self, **kwargs)

    Trainer.forward_backward_step = slow
    train(*arguments)


def multiplies_for_a_minute(*arguments: str) -> None:
    """The first step is one long operation, without Python. A file of each rank tells of it."""
    from torchtitan.trainer import Trainer

    def slow(*_: object, **__: object) -> NoReturn:
        matrix = torch.ones(12_000, 12_000)
        # Told from within the operation, not before it.
        begun = Path(f"{os.environ['RECORD']}_in_first_step_{os.environ['RANK']}")
        threading.Timer(2, begun.touch).start()
        matrix @ matrix  # pyright: ignore[reportUnusedExpression]
        raise AssertionError

    Trainer.forward_backward_step = slow
    train(*arguments)


def closes_slowly(*arguments: str) -> None:
    """The loggers of rank 0 take longer to close than those of rank 1. Files tell of it."""
    from blendtitan.titan.metrics import LossMetrics

    close = LossMetrics.close
    closed = Path(f"{os.environ['RECORD']}_closed_{_rank()}")

    def slow(self: LossMetrics) -> None:
        if not closed.exists():
            # A signal soon after the first one counts as the same.
            time.sleep(REPEAT_SECONDS + 3 * (_rank() == 0))
        close(self)
        closed.touch()

    LossMetrics.close = slow
    train(*arguments)


def saves_slowly(*arguments: str) -> None:
    """A save takes three seconds."""
    save = BlendCheckpointManager.dcp_save

    def slow(*arguments: Any, **more: Any) -> Any:
        with open(f"{os.environ['RECORD']}_saves_{_rank()}", "a") as file:
            file.write("1")
        time.sleep(3)
        return save(*arguments, **more)

    BlendCheckpointManager.dcp_save = slow
    train(*arguments)


def saves_for_ever(*arguments: str) -> None:
    """A checkpoint is never finished."""

    def hang(*_: object, **__: object) -> NoReturn:
        time.sleep(10**6)
        raise AssertionError

    BlendCheckpointManager.dcp_save = hang  # pyright: ignore
    train(*arguments)

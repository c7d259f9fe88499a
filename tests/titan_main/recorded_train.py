"""Trains as ``blendtitan.titan.train`` does with main, and writes down micro batches and losses.

Every rank appends JSON lines to the file ``$RECORD.RANK``: the step and ``samples``, one digest per
sample, or ``training`` or ``validation``, a loss. A rank kills itself by SIGKILL when step
``$DIE_AT`` has its first micro batch. With ``$LOADER_STATE``, a JSON file, the loader begins there.
"""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from blendtitan.titan import prepare

prepare()

import torch  # noqa: E402
from torchtitan import trainer as upstream_trainer  # noqa: E402

from blendtitan.titan import train  # noqa: E402
from blendtitan.titan.metrics import LossMetrics  # noqa: E402
from blendtitan.titan.model import decoder_config  # noqa: E402
from blendtitan.titan.trainer import Batches, BlendTrainer  # noqa: E402

DIE_AT = int(os.environ.get("DIE_AT", "0"))
NUM_LAYERS = 2


def record(**values: Any) -> None:
    with open(f"{os.environ['RECORD']}.{os.environ['RANK']}", "a") as file:
        file.write(json.dumps(values) + "\n")


class RecordingTrainer(BlendTrainer):
    """Records every micro batch."""

    @dataclass(kw_only=True, slots=True)
    class Config(BlendTrainer.Config):
        """No settings of its own."""

    def batch_generator(self, data_iterable: Batches) -> Iterator[Any]:
        """Batches for training, recorded as they are taken."""
        if state := os.environ.get("LOADER_STATE"):
            self.dataloader.load_state_dict(json.loads(Path(state).read_text()))
            self.step = self.dataloader.consumed_samples // 4  # pyright: ignore
        return map(self._recorded, super().batch_generator(data_iterable))

    def _recorded(self, batch: tuple[Any, torch.Tensor]) -> tuple[Any, torch.Tensor]:
        rows = batch[1].view(-1, self.config.training.max_context_length)  # pyright: ignore
        record(
            step=self.step, samples=[hashlib.sha256(r.numpy().tobytes()).hexdigest() for r in rows]
        )
        if self.step == DIE_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch


def recording(config: Any) -> RecordingTrainer.Config:
    del decoder_config(config.model_spec).layers[NUM_LAYERS:]
    return RecordingTrainer.Config(
        **{each.name: getattr(config, each.name) for each in fields(config)}
    )


def main() -> None:
    log, log_validation = LossMetrics.log, LossMetrics.log_validation

    def recorded(self: Any, step: int, loss: float, *args: Any, **kwargs: Any) -> None:
        record(step=step, training=loss)
        log(self, step, loss, *args, **kwargs)

    def recorded_validation(self: Any, loss: float, step: int, **kwargs: Any) -> None:
        record(step=step, validation=loss)
        log_validation(self, loss, step, **kwargs)

    LossMetrics.log, LossMetrics.log_validation = recorded, recorded_validation
    # Rank 0 sleeps at the end of training, which no test waits for.
    upstream_trainer.time = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    torch.set_num_threads(1)
    read_run = train.read_run
    train.read_run = lambda arguments: (recording(read_run(arguments)[0]), None)
    train.main(sys.argv[1:])


if __name__ == "__main__":
    main()

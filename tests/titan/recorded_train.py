"""Trains as ``blendtitan.titan.train`` does, and writes down each micro batch and each loss.

Run by torchrun. Every rank appends JSON lines to the file ``$RECORD.RANK``: the step and
``samples``, one digest per row of labels, or ``training`` or ``validation``, a loss. The first
line is its process id.
"""

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from blendtitan.titan import prepare

prepare()  # before torchtitan is imported

from blendtitan.titan import assemble, train  # noqa: E402
from blendtitan.titan.metrics import LossMetrics  # noqa: E402
from blendtitan.titan.model import decoder_config  # noqa: E402
from blendtitan.titan.trainer import Batches, BlendTrainer  # noqa: E402
from tests.told import begin_where_told, die_when_told  # noqa: E402

# No test depends on the depth of a model, and every layer costs each rank time.
NUM_LAYERS = 2


def record(**entry: Any) -> None:
    with open(f"{os.environ['RECORD']}.{os.environ['RANK']}", "a") as file:
        file.write(json.dumps(entry) + "\n")


class RecordingMetrics(LossMetrics):
    """Records every loss."""

    @dataclass(kw_only=True, slots=True)
    class Config(LossMetrics.Config):
        """No settings of its own."""

    def log(self, step: int, global_avg_loss: float, *args: Any, **kwargs: Any) -> None:
        """Record the loss of a training step."""
        super().log(step, global_avg_loss, *args, **kwargs)
        record(step=step, training=global_avg_loss)

    def log_validation(self, loss: float, step: int, *args: Any, **kwargs: Any) -> None:
        """Record the loss of a validation."""
        super().log_validation(loss, step, *args, **kwargs)
        record(step=step, validation=loss)


class RecordingTrainer(BlendTrainer):
    """Records every micro batch."""

    @dataclass(kw_only=True, slots=True)
    class Config(BlendTrainer.Config):
        """No settings of its own."""

    def batch_generator(self, data_iterable: Batches) -> Iterator[Any]:
        """Batches for training, recorded as they are taken."""
        samples = self.config.training.global_batch_size
        begin_where_told(self, self.dataloader, global_batch_size=samples)
        return map(self._recorded, super().batch_generator(data_iterable))

    def _recorded(self, batch: tuple[Any, torch.Tensor]) -> tuple[Any, torch.Tensor]:
        rows = [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in batch[1]]
        record(step=self.step, samples=rows)
        die_when_told(self.step)
        return batch


def recording(config: BlendTrainer.Config) -> RecordingTrainer.Config:
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    metrics = RecordingMetrics.Config(**dataclasses.asdict(config.metrics))
    config = RecordingTrainer.Config(**fields | {"metrics": metrics})
    if config.model_spec is not None:
        del decoder_config(config.model_spec).layers[NUM_LAYERS:]
    return config


def main(*arguments: str) -> None:
    record(pid=os.getpid())
    build_config = assemble.build_config
    assemble.build_config = lambda settings: recording(build_config(settings))
    train.main(arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Trains as one replica, and writes down what it contributes to each attempt at a step.

Each replica appends JSON lines to the file ``$RECORD.REPLICA``: for each contribution the step, the
number of the attempt, that of the attempt whose state it started from, and a digest per row of
labels; for each commit the loss; in the end a digest of the weights. Each line has the rank. It
ends at the step that the file ``$RECORD.stop`` names.
"""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from blendtitan.titan import prepare

prepare()  # before torchtitan is imported

from blendtitan.titan import assemble, train  # noqa: E402
from blendtitan.titan.model import decoder_config  # noqa: E402
from blendtitan.titan.trainer import Batches  # noqa: E402
from blendtitan.titan_ft.metrics import ReplicaMetrics  # noqa: E402
from blendtitan.titan_ft.rank_state import local_tensors  # noqa: E402
from blendtitan.titan_ft.semi_sync import SemiSyncTrainer  # noqa: E402
from blendtitan.titan_ft.trainer import ReplicaTrainer  # noqa: E402
from tests.titan.recorded_train import NUM_LAYERS  # noqa: E402


def record(replica: int, **entry: Any) -> None:
    entry |= {"rank": int(os.environ["RANK"]), "time": time.time()}
    line = json.dumps(entry) + "\n"
    # In one write, so that a killed replica leaves no part of a line.
    file = os.open(f"{os.environ['RECORD']}.{replica}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)


def wait_for_others(replica: int, count: int) -> None:
    """Wait until so many replicas are about to begin: one may start much faster than others."""
    path = Path(os.environ["RECORD"])
    path.with_name(f"{path.name}_ready_{replica}").touch()
    end = time.monotonic() + 120
    while len([*path.parent.glob(f"{path.name}_ready_*")]) < count and time.monotonic() < end:
        time.sleep(0.01)


class RecordingMetrics(ReplicaMetrics):
    """Records every loss."""

    @dataclass(kw_only=True, slots=True)
    class Config(ReplicaMetrics.Config):
        """No settings of its own."""

    replica = 0

    def log(self, step: int, global_avg_loss: float, *args: Any, **kwargs: Any) -> None:
        """Record the loss of a committed step."""
        super().log(step, global_avg_loss, *args, **kwargs)
        record(self.replica, step=step, loss=global_avg_loss)


class Recording:
    """Records what a replica contributes to each attempt."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._replica = self.config.fault_tolerance.replica_id
        assert isinstance(self.metrics_processor, RecordingMetrics)
        self.metrics_processor.replica = self._replica
        self._read: list[str] = []

    def train(self) -> None:
        """Train to the last step, and note the weights of this rank."""
        super().train()
        digest = hashlib.sha256()
        for each in local_tensors(self.model_parts).values():
            digest.update(each.numpy().tobytes())
        record(self._replica, step=self.step, weights=digest.hexdigest())

    def should_continue_training(self) -> bool:
        """Whether the step at which the test ends is not made yet."""
        stop = Path(f"{os.environ['RECORD']}.stop")
        if stop.exists():
            self.config.training.steps = int(stop.read_text())
        return super().should_continue_training()

    def batch_generator(self, data_iterable: Batches) -> Iterator[Any]:
        """Batches for training, noted as they are taken."""
        return map(self._noted, super().batch_generator(data_iterable))

    def _noted(self, batch: tuple[Any, torch.Tensor]) -> tuple[Any, torch.Tensor]:
        self._read += [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in batch[1]]
        return batch

    def _begin(self) -> Any:
        if together := os.environ.pop("TOGETHER", None):
            wait_for_others(self._replica, int(together))
        self._read.clear()
        if os.environ.get("DIVERGE_AT") == str(self.step):  # as if it had committed another attempt
            self._last_attempt = int(os.environ.pop("DIVERGE_AT"))
        return super()._begin()

    def _exchange(self, attempt: Any, num_labels: torch.Tensor) -> torch.Tensor:
        result = super()._exchange(attempt, num_labels)
        record(
            self._replica,
            step=self.step,
            attempt=attempt.number,
            before=self._last_attempt,
            samples=self._read,
        )
        return result


class RecordingReplica(Recording, ReplicaTrainer):
    """Exchanges gradients in every step."""

    @dataclass(kw_only=True, slots=True)
    class Config(ReplicaTrainer.Config):
        """No settings of its own."""


class RecordingSemiSync(Recording, SemiSyncTrainer):
    """Exchanges changes of the model."""

    @dataclass(kw_only=True, slots=True)
    class Config(SemiSyncTrainer.Config):
        """No settings of its own."""


def recording(config: Any) -> Any:
    if not isinstance(config, ReplicaTrainer.Config):
        return config
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    metrics = RecordingMetrics.Config(**dataclasses.asdict(config.metrics))
    is_semi_sync = isinstance(config, SemiSyncTrainer.Config)
    kind = RecordingSemiSync if is_semi_sync else RecordingReplica
    config = kind.Config(**fields | {"metrics": metrics})
    assert config.model_spec is not None
    del decoder_config(config.model_spec).layers[NUM_LAYERS:]
    return config


def main(*arguments: str) -> None:
    # Forked from a process that has imported everything, as ``tests.titan.launched`` does.
    build_config = assemble.build_config
    assemble.build_config = lambda settings: recording(build_config(settings))
    train.main(arguments)

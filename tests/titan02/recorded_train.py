"""Trains as ``blendtitan.titan02.train`` does, and writes down each micro batch and each loss.

Run by torchrun. Every rank appends JSON lines to the file ``$RECORD.RANK``: the step and
``samples``, one digest per row of labels, or ``training`` or ``validation``, a loss. A rank kills
itself by SIGKILL when step ``$DIE_AT`` has its first micro batch; in step ``$LOSE_CLAIM_AT``, it
loses its claim on the run's folder.
"""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from blendtitan.titan import prepare

# As the entry point does, before torchtitan is imported: it reads the command line then.
sys.argv += ["--job.custom_config_module", "blendtitan.titan02.config"]
sys.argv += ["--experimental.custom_import", "blendtitan.titan02.models"]
prepare()

import torch  # noqa: E402
import torchtitan.train as entry  # noqa: E402
from torchtitan.components.metrics import MetricsProcessor  # noqa: E402
from torchtitan.config import ConfigManager  # noqa: E402

DIE_AT = int(os.environ.get("DIE_AT", "0"))
LOSE_CLAIM_AT = int(os.environ.get("LOSE_CLAIM_AT", "0"))


def record(**values: Any) -> None:
    with open(f"{os.environ['RECORD']}.{os.environ['RANK']}", "a") as file:
        file.write(json.dumps(values) + "\n")


class RecordingTrainer(entry.Trainer):
    """Records every micro batch."""

    def batch_generator(self, data_iterable: Any) -> Iterator[Any]:
        """Batches for training, recorded as they are taken."""
        for inputs, labels in super().batch_generator(data_iterable):
            rows = [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in labels.cpu()]
            record(step=self.step, samples=rows)
            if self.step == DIE_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.step == LOSE_CLAIM_AT:
                for claim in Path(self.job_config.job.dump_folder).glob("claim-*"):
                    claim.unlink()
            yield inputs, labels


def main() -> None:
    log, log_validation = MetricsProcessor.log, MetricsProcessor.log_validation

    def recorded(self: Any, step: int, loss: float, *args: Any, **kwargs: Any) -> None:
        record(step=step, training=loss)
        log(self, step, loss, *args, **kwargs)

    def recorded_validation(self: Any, loss: float, step: int) -> None:
        record(step=step, validation=loss)
        log_validation(self, loss, step)

    MetricsProcessor.log, MetricsProcessor.log_validation = recorded, recorded_validation
    # Rank 0 sleeps at the end of training, which no test waits for.
    entry.time = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    entry.init_logger()
    torch.set_num_threads(1)
    trainer = RecordingTrainer(ConfigManager().parse_args(sys.argv[1:]))
    trainer.train()
    trainer.close()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

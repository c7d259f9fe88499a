"""The configuration that a sweep is made of, and runs that have logged something."""

from collections.abc import Callable
from pathlib import Path

import pytest

from blendtitan.cli import main
from blendtitan.mixture.sweep import read_shares, with_keys
from tests.conftest import WriteBlend
from tests.runs.test_scalars import write_start

WriteConfig = Callable[..., Path]

CONFIG = """\
# A run with few samples.
[training]
seq_len = 8
local_batch_size = 2
global_batch_size = 4 # of all ranks
steps = 10

[blendcorpus]
data_file_list = "" # set below
eod_token_id = 2
split = "80,20,0"

[metrics]
enable_tensorboard = true
log_freq = 2

[validation]
enable = true
freq = 5
"""


@pytest.fixture
def write_config(tmp_path: Path, write_blend: WriteBlend) -> WriteConfig:
    """``write_config({"training.steps": 5})`` writes the file of a run on three corpora.

    Their shares are code 0.5, notes 0.3, web 0.2.
    """

    def write(keys: dict[str, object] | None = None, corpora: str = "code notes web") -> Path:
        weights = {"code": (5.0, [500, 100]), "notes": (3.0, [300]), "web": (2.0, [400])}
        blend = write_blend({name: weights[name] for name in corpora.split()}, seq_length=8)
        named = {"blendcorpus.data_file_list": str(blend.data_file_list)} | (keys or {})
        path = tmp_path / "run.toml"
        path.write_text(with_keys(CONFIG, named))
        return path

    return write


def sweep(config: Path, folder: Path, *arguments: str) -> int:
    """The exit status of ``blendtitan sweep``."""
    return main(["sweep", str(folder), "--config", str(config), *arguments])


def collect(folder: Path, *arguments: str) -> int:
    """The exit status of ``blendtitan sweep --collect``."""
    return main(["sweep", str(folder), "--collect", *arguments])


def log_run(
    folder: Path,
    run: str,
    *,
    steps: int,
    validated: int = 10,
    loss: float = 3.0,
    without: tuple[str, ...] = (),
) -> None:
    """What the trainer leaves of a run that stopped after so many steps, and that validation.

    ``without`` names metrics that the run has not logged.
    """
    config = (folder / f"{run}.toml").read_text()
    corpora = next(iter(read_shares(folder).values()))
    (folder / run).mkdir()
    (folder / run / "config.toml").write_text(config)
    logged = [step for step in (1, 2, 4, 6, 8, 10) if step <= steps]
    validations = [step for step in (1, 5, 10) if step <= min(steps, validated)]
    metrics = {"loss_metrics/global_avg_loss": [(step, loss) for step in logged]}
    for number, corpus in enumerate(corpora):
        metrics[f"loss_metrics/labels/{corpus}"] = [(step, 1.0 + step) for step in logged]
        metrics[f"loss_metrics/loss/{corpus}"] = [(step, loss + number + step) for step in logged]
    for tag in ("", *(f"/{corpus}" for corpus in corpora)):
        metrics[f"validation_metrics/loss{tag}"] = [(step, loss + step) for step in validations]
    logs = {name: values for name, values in metrics.items() if name not in without}
    write_start(folder / run, 0, **logs)

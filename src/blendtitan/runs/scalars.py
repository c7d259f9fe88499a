"""The metrics that a run logged to TensorBoard, over all its starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, requires_extra
from blendtitan.files import open_file

LEARNING_RATE = "lr"
"""Learning rate. TorchTitan 0.3 appends the name of the optimizer."""

GRADIENT_NORM = "grad_norm"
"""Norm of the gradients before clipping. TorchTitan logs it, as the next two."""

DEVICE_TOKENS_PER_SECOND = "throughput(tps)"
"""Tokens per second and device, since the step logged before or the end of validation."""

MFU = "mfu(%)"
"""Model FLOPS utilisation: FLOPS of the model, in percent of the device's peak."""

TOKENS_PER_SECOND = "data/tokens_per_second"
"""``data/samples_per_second`` in tokens. It is computed for reports and not logged."""

Logged = Mapping[str, list[tuple[int, float]]]
"""Steps and values of each metric."""


class Start(NamedTuple):
    """What one start of a run logged."""

    logged: Logged
    opened: float
    """Time at which the file was opened, before the first step; in seconds, as for ``written``."""
    written: float
    """Time of the last value."""


@dataclass(frozen=True, slots=True)
class Scalars:
    """A metric over the steps of a run."""

    steps: NDArray[np.int64]
    """Steps at which it was logged, growing. Shape ``(num_logged,)``."""
    values: NDArray[np.float64]
    """Shape ``(num_logged,)``."""


def read_scalars(run_folder: Path) -> dict[str, Scalars]:
    """The metrics of a run by name, from all TensorBoard files below its folder.

    A run that was stopped and resumed has one file for each start. Repeated steps come
    from the later file, from which the model continued.

    Raises:
        ConfigError: There is no TensorBoard file.
    """
    if not has_scalars(run_folder):
        raise ConfigError(
            f"{run_folder}: found no TensorBoard file (events.out.tfevents.*) below it. Expected "
            f"those of a run with metrics.enable_tensorboard = true that has logged a step."
        )
    return joined([start.logged for start in read_starts(run_folder)])


def has_scalars(run_folder: Path) -> bool:
    """Whether there is a TensorBoard file below a run's folder."""
    return bool(_event_files(run_folder))


def read_starts(run_folder: Path) -> list[Start]:
    """Read the metrics of each start of a run, oldest first; a start without any is left out."""
    with requires_extra("report", "reading TensorBoard files"):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    starts: list[Start] = []
    for path in _event_files(run_folder):
        _check_regular(path)
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        found = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
        if found:
            logged = {tag: [(e.step, e.value) for e in each] for tag, each in found.items()}
            written = max(event.wall_time for each in found.values() for event in each)
            starts.append(Start(logged, events.FirstEventTimestamp() or written, written))
    return starts


def wall_seconds(starts: Sequence[Start]) -> tuple[float, int]:
    """Seconds during which a run trained, and its number of starts.

    Files of several ranks, which overlap in time, are one start.
    """
    seconds, num_starts, until = 0.0, 0, -np.inf
    for _, opened, written in sorted(starts, key=lambda start: start.opened):
        num_starts += opened > until
        seconds += max(0.0, written - max(opened, until))
        until = max(until, written)
    return seconds, num_starts


def joined(starts: Sequence[Logged]) -> dict[str, Scalars]:
    """The metrics of a run, from those of each of its starts, oldest first."""
    kept: dict[str, list[tuple[int, float]]] = {}
    for start in starts:
        first = min((step for logged in start.values() for step, _ in logged), default=None)
        if first is None:
            continue
        kept = {tag: [at for at in logged if at[0] < first] for tag, logged in kept.items()}
        for tag, logged in start.items():
            kept.setdefault(tag, []).extend(sorted(dict(logged).items()))
    return {
        tag: Scalars(
            np.array([step for step, _ in logged], np.int64),
            np.array([value for _, value in logged], np.float64),
        )
        for tag, logged in sorted(kept.items())
        if logged
    }


def _check_regular(path: Path) -> None:
    # TensorBoard opens the file itself, and would block on a pipe.
    try:
        open_file(path).close()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}), expected a TensorBoard file. Move it away."
        ) from error


def _event_files(run_folder: Path) -> list[Path]:
    # Their names begin with the time at which they were opened.
    return sorted(run_folder.rglob("events.out.tfevents.*"), key=lambda path: path.name)

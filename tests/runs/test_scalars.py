"""The metrics of a run: for repeated steps, those from which the model continued."""

import re
import time
from pathlib import Path

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from blendtitan.errors import ConfigError
from blendtitan.runs.scalars import Start, read_scalars, read_starts, wall_seconds


def write_start(folder: Path, number: int, **metrics: list[tuple[int, float]]) -> Path:
    """The TensorBoard file of one start of a run, in which each step took a minute."""
    opened = time.time()
    first = min((step for logged in metrics.values() for step, _ in logged), default=1)
    writer = EventFileWriter(str(folder / f"tb/start-{number}"))
    for tag, logged in metrics.items():
        for step, value in logged:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            written = opened + 60 * (step - first + 1)
            writer.add_event(Event(step=step, summary=summary, wall_time=written))
    writer.close()
    (path,) = (folder / f"tb/start-{number}").iterdir()
    # Opened a second after the one before.
    named = re.sub(r"tfevents\.\d+", f"tfevents.{1_700_000_000 + number}", path.name)
    return path.rename(path.with_name(named))


def test_metrics_of_every_step(tmp_path: Path) -> None:
    write_start(tmp_path, 0, loss=[(1, 4.0), (2, 3.0)], valid=[(2, 3.5)])

    scalars = read_scalars(tmp_path)

    assert list(scalars) == ["loss", "valid"]
    assert scalars["loss"].steps.tolist() == [1, 2]
    assert scalars["loss"].values.tolist() == [4.0, 3.0]
    assert scalars["valid"].steps.tolist() == [2]


def test_steps_done_again_are_those_of_the_later_start(tmp_path: Path) -> None:
    """The first start went to step 4; the checkpoint that the second resumed was of step 2."""
    write_start(tmp_path, 0, loss=[(1, 4.0), (2, 3.0), (3, 9.0), (4, 9.0)], valid=[(4, 9.0)])
    write_start(tmp_path, 1, loss=[(3, 2.5), (4, 2.0), (5, 1.5)])

    scalars = read_scalars(tmp_path)

    assert scalars["loss"].steps.tolist() == [1, 2, 3, 4, 5]
    assert scalars["loss"].values.tolist() == [4.0, 3.0, 2.5, 2.0, 1.5]
    assert "valid" not in scalars


def test_a_truncated_file_gives_its_complete_entries(tmp_path: Path) -> None:
    """A killed run leaves half an entry."""
    path = write_start(tmp_path, 0, loss=[(1, 4.0), (2, 3.0)])
    path.write_bytes(path.read_bytes()[:-3])

    assert read_scalars(tmp_path)["loss"].steps.tolist() == [1]


def test_a_run_without_tensorboard_files(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"found no TensorBoard file .+ metrics\.enable_tensorboard"
    ):
        read_scalars(tmp_path)


def test_the_wall_time_is_that_of_all_starts(tmp_path: Path) -> None:
    """From opening a file, before the first step, to its last value; not the time between."""
    write_start(tmp_path, 0, loss=[(1, 4.0), (2, 3.0)], valid=[(2, 3.5)])
    write_start(tmp_path, 1)
    (start,) = read_starts(tmp_path)
    later = Start({}, start.written + 3600, start.written + 3630)

    assert wall_seconds([start]) == (pytest.approx(120, abs=1), 1)
    assert wall_seconds([later, start]) == (pytest.approx(150, abs=1), 2)


def test_files_of_several_ranks_are_one_start() -> None:
    ranks = [Start({}, 100.0, 160.0), Start({}, 101.0, 170.0), Start({}, 102.0, 150.0)]

    assert wall_seconds(ranks) == (70.0, 1)
    assert wall_seconds([]) == (0.0, 0)

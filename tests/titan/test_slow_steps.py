"""A step that takes long says so, with its size and the memory it uses."""

import re
import threading
import time
from typing import Any

import pytest

from tests.titan.conftest import Job
from tests.titan.launched import train

pytestmark = pytest.mark.slow

SECONDS = {1: 1.0, 4: 6.0}
"""Steps that take longer than the others."""


def train_slowly(*arguments: str) -> None:
    """What each rank does, with lines after half a second instead of 30."""
    from blendtitan.titan import slow_steps
    from blendtitan.titan.trainer import BlendTrainer

    def forward_backward_step(self: BlendTrainer, **parts: Any) -> Any:
        time.sleep(SECONDS.get(self.step, 0))
        return compute(self, **parts)

    compute = BlendTrainer.forward_backward_step
    BlendTrainer.forward_backward_step = forward_backward_step
    slow_steps.FIRST_S, slow_steps._POLL_S = 0.5, 0.05
    train(*arguments)


def test_the_first_step_and_those_that_are_slower_than_all_before_say_how_long(job: Job) -> None:
    """Step 4 takes more than three times as long as the first one; rank 0 speaks for all."""
    output = job.run("--training.steps=4", processes=2, entry=train_slowly)

    lines = re.findall(r"Step (\d) is not finished after (\d+) s: (.*)", output)
    steps = [int(step) for step, _, _ in lines]
    assert steps == sorted(steps)
    assert set(steps) == {1, 4}
    assert all(
        text.startswith(
            "each process trains on 2 samples of 32 tokens per step. This process has used up to "
        )
        for _, _, text in lines
    )
    assert {"lower training.seq_len" in text for step, _, text in lines if step == "1"} == {True}
    assert not any("lower training.seq_len" in text for step, _, text in lines if step == "4")
    first, *more = [int(seconds) for step, seconds, _ in lines if step == "4"]
    assert first >= 3 * SECONDS[1]
    assert len(more) <= 1


def test_its_thread_ends_with_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook may train several times, and each trainer holds a model."""
    from blendtitan.titan import slow_steps

    monkeypatch.setattr(slow_steps, "_POLL_S", 0.01)
    before = {*threading.enumerate()}
    trainer: Any = type("Trainer", (), {})()
    steps = slow_steps.SlowSteps(trainer)
    (thread,) = {*threading.enumerate()} - before
    steps.begin()
    assert thread.is_alive()
    del trainer

    thread.join(10)
    assert not thread.is_alive()

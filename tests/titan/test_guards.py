"""Ranks ask each other about once a second whether to end, however long the first step takes."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from blendtitan.titan import guards
from blendtitan.titan.guards import Question


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The only rank of a run, and the clock that it reads."""
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(guards, "time", clock)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield clock
    dist.destroy_process_group()


def test_ranks_ask_once_a_second_after_a_slow_first_step(clock: SimpleNamespace) -> None:
    """They also ask after that step, just before the next one begins."""
    question, asked = Question(torch.device("cpu")), list[int]()
    question.ask(0, 1, now=True)
    question.answer()
    clock.now += 60
    question.ask(0, 1, now=True)
    question.answer()
    for step in range(2, 12):
        question.ask(3, step, now=False)
        asked += [step] * (question.answer() == 3)
        clock.now += 0.5

    assert asked == [2, 3, 5, 7, 9, 11]

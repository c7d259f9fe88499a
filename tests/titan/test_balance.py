"""Balanced steps in TorchTitan: its loaders on every rank, and real runs."""

import dataclasses
import re
from itertools import islice
from pathlib import Path

import pytest

from blendtitan.cli import main
from blendtitan.errors import ConfigError
from blendtitan.order.blend import Segment
from tests.small_corpora import write_corpora
from tests.titan import unmasked
from tests.titan.conftest import TIMEOUT_S, Job, digests_of, small_job
from tests.titan.test_dataloader import Config, build

STEP = 24

BALANCED = (
    *("--blendcorpus.balance", "attention"),
    *("--blendcorpus.provide_attention_mask", "--training.local_batch_size", "1"),
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        data_file_list=str(write_corpora(tmp_path)),
        split="90,10,0",
        num_workers=0,
        provide_attention_mask=True,
        global_batch_size=STEP,
    )


@pytest.mark.parametrize("local_batch_size", [2, 4], ids=["passes", "parts of a pipeline"])
@pytest.mark.parametrize("ranks", [1, 3])
def test_each_step_has_the_samples_and_the_state_that_it_has_without_balance(
    config: Config, ranks: int, local_batch_size: int
) -> None:
    """A pipeline's loader gives parts of a micro batch, here of 2 samples."""
    seen: dict[str, list[object]] = {}
    for balance in ("none", "attention"):
        own = dataclasses.replace(config, balance=balance, micro_batch_size=local_batch_size)
        place = {"dp_world_size": ranks, "local_batch_size": 2}
        loaders = [build(own, dp_rank=rank, **place) for rank in range(ranks)]
        for loader in loaders:
            loader.align(0, global_batch_size=STEP)
        streams = [iter(loader) for loader in loaders]
        seen[balance] = []
        for _ in range(3):
            batches = [b for stream in streams for b in islice(stream, STEP // ranks // 2)]
            rows = sorted(row for _, labels in batches for row in labels.tolist())
            seen[balance] += [rows, *(loader.state_dict() for loader in loaders)]

    assert seen["attention"] == seen["none"]


def test_a_changed_global_batch_size_is_balanced_from_there_on(config: Config) -> None:
    loader = build(dataclasses.replace(config, balance="attention"), local_batch_size=2)
    loader.align(0, global_batch_size=STEP)
    list(islice(loader, STEP // 2))
    resumed = build(dataclasses.replace(config, balance="attention"), local_batch_size=2)
    resumed.load_state_dict(loader.state_dict())
    resumed.align(1, global_batch_size=2 * STEP)
    list(islice(resumed, STEP))

    resumed.state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"provide_attention_mask": False}, "needs provide_attention_mask = true"),
        ({"order": "blendcorpus"}, "needs order = "),
    ],
)
def test_balance_needs_rows_of_different_known_costs(
    config: Config, change: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=f'balance = "attention" {message}'):
        build(dataclasses.replace(config, balance="attention", **change))


SLOTS = {1: range(4), 2: range(4, 8), 3: [8, 9, *range(14, 20)]}
SLOTS |= {4: range(20, 28), 5: range(28, 36), 6: range(36, 44)}
"""The slots of each step of ``changed_job``."""


def changed_job(folder: Path, tokenizer_path: Path) -> Job:
    """A run with larger steps after step 2, skipped slots and other shares after step 3."""
    job = small_job(folder, tokenizer_path)
    job.settings["training"]["batch_schedule"] = [{"from_step": 2, "global_batch_size": 8}]
    job.settings["blendcorpus"] |= {
        "skip": [{"from_slot": 10, "to_slot": 13}],
        "segment": [{"from_step": 3, "shares": {"code": 3, "web": 1}}],
        "max_epochs": 0,
    }
    return job


def expected_samples(job: Job, step: int) -> list[str]:
    """Digests of the samples that the order with other shares has for a step, sorted."""
    segment = Segment(SLOTS[4][0], {"code": 3, "web": 1})
    return digests_of(job.train_dataset().with_changes([segment]), SLOTS[step])


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Job:
    """A balanced run of two ranks, killed in step 5 and resumed on one rank from step 4."""
    job = changed_job(tmp_path_factory.mktemp("balanced"), tokenizer_path)
    run = job.launch(*BALANCED, processes=2, entry=unmasked.train_to_death)
    assert run.wait(TIMEOUT_S) != 0
    job.run(*BALANCED, entry=unmasked.train)
    return job


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Job:
    """The same run of two ranks without balance, from the first step to the last."""
    job = changed_job(tmp_path_factory.mktemp("plain"), tokenizer_path)
    job.run("--training.local_batch_size", "1", processes=2)
    return job


def corpus_losses(job: Job) -> dict[tuple[str, str], float]:
    """The logged losses of the corpora in the last two steps, by step and corpus."""
    lines = re.findall(r"step: +([56])  loss of each corpus: (.*)", job.output)
    found = {
        (step, name): float(loss)
        for step, line in lines
        for name, loss in re.findall(r"(\w+) ([\d.]+)", line)
    }
    assert {step for step, _ in found} == {"5", "6"}
    return found


@pytest.mark.slow
def test_a_run_has_the_samples_of_each_step_through_a_kill_and_on_other_ranks(killed: Job) -> None:
    """With segments, skipped slots and a batch schedule together."""
    samples = killed.samples(run=0) | killed.samples()

    assert samples == {step: expected_samples(killed, step) for step in SLOTS}
    assert main(["audit", str(killed.folder / "out")]) == 0
    assert "Steps are balanced by the lengths of 144 documents" in killed.output


@pytest.mark.slow
def test_a_run_gives_rows_to_other_ranks_and_has_the_same_losses(killed: Job, plain: Job) -> None:
    """Up to the order in which floating-point numbers are added."""
    of_ranks = killed.samples_of_ranks(run=0)
    losses = killed.losses("training", run=0) | killed.losses("training")

    assert any(of_ranks[step] != plain.samples_of_ranks()[step] for step in range(1, 5))
    assert all(len(of_ranks[step][0]) == len(SLOTS[step]) // 2 for step in range(1, 5))
    assert losses == pytest.approx(plain.losses("training"), rel=1e-5)
    assert corpus_losses(killed) == pytest.approx(corpus_losses(plain), abs=2e-4)

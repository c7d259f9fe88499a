"""Resumed runs: aligning the loader with the trainer's step."""

import dataclasses
import json
import logging
from pathlib import Path

import pytest
import torch

from blendtitan import DataLoader
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.state import PACE_KEY, STATE_KEY
from blendtitan.titan import dataloader
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from tests.small_corpora import write_corpora
from tests.titan.test_dataloader import Config, build, dataset_of, first


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_file_list=str(write_corpora(tmp_path)), split="80,20,0", num_workers=0)


def trained(
    loader: BlendCorpusDataLoader, *, after: int, steps: int, global_batch_size: int
) -> BlendCorpusDataLoader:
    """It after so many steps more of a trainer that had ``after`` steps behind it."""
    loader.align(after, global_batch_size=global_batch_size)
    batches = iter(loader)
    end = loader.consumed_samples + steps * global_batch_size
    while loader.consumed_samples < end:
        next(batches)
    return loader


@pytest.fixture
def saved(config: Config) -> BlendCorpusDataLoader:
    """A loader that gave three steps of 4 samples."""
    return trained(build(config, local_batch_size=2), after=0, steps=3, global_batch_size=4)


def resumed(config: Config, saved: BlendCorpusDataLoader) -> BlendCorpusDataLoader:
    loader = build(config, local_batch_size=2)
    loader.load_state_dict(saved.state_dict())
    return loader


def paces_in(loader: BlendCorpusDataLoader) -> list[dict[str, int]]:
    return json.loads(loader.state_dict()[STATE_KEY])[PACE_KEY]


# The same global batch size


def test_it_continues_from_its_last_position(
    config: Config, saved: BlendCorpusDataLoader, caplog: pytest.LogCaptureFixture
) -> None:
    loader = resumed(config, saved)
    loader.align(3, global_batch_size=4)

    assert loader.state_dict() == saved.state_dict()
    assert torch.equal(first(loader)[1], first(saved)[1])
    assert not caplog.records


def test_its_state_is_that_of_a_run_that_was_never_interrupted(
    config: Config, saved: BlendCorpusDataLoader
) -> None:
    loader = trained(resumed(config, saved), after=3, steps=2, global_batch_size=4)
    uninterrupted = trained(build(config), after=0, steps=5, global_batch_size=4)

    assert loader.state_dict() == uninterrupted.state_dict()


@pytest.mark.parametrize("num_workers", [1, 4])
def test_the_number_of_reading_threads_may_change(
    config: Config, saved: BlendCorpusDataLoader, num_workers: int
) -> None:
    """What they read ahead was not consumed."""
    loader = resumed(dataclasses.replace(config, num_workers=num_workers), saved)
    trained(loader, after=3, steps=2, global_batch_size=4)
    again = resumed(config, loader)

    assert again.consumed_samples == 20
    assert torch.equal(first(again)[1], first(loader)[1])


def test_a_place_that_is_not_the_trainers_is_refused(
    config: Config, saved: BlendCorpusDataLoader
) -> None:
    loader = resumed(config, saved)
    expected = r"has consumed 12 samples, expected 8 at step 2: 2 steps of 4 samples\. Its state"

    with pytest.raises(ResumeError, match=expected):
        loader.align(2, global_batch_size=4)


# Another global batch size


@pytest.mark.parametrize("global_batch_size", [2, 6])
def test_slots_continue_with_another_global_batch_size(
    config: Config,
    saved: BlendCorpusDataLoader,
    caplog: pytest.LogCaptureFixture,
    global_batch_size: int,
) -> None:
    loader = resumed(config, saved)
    loader.align(3, global_batch_size=global_batch_size)
    (warning,) = caplog.messages

    assert torch.equal(first(loader)[1], first(saved)[1])
    assert warning == (
        f"The global batch size was 4 samples until step 3 and is {global_batch_size} from now on. "
        f"The data continues after the 12 samples consumed so far."
    )


def test_from_then_on_it_is_the_global_batch_size(
    config: Config, saved: BlendCorpusDataLoader, caplog: pytest.LogCaptureFixture
) -> None:
    """The next resume says nothing, and is checked as any other."""
    changed = trained(resumed(config, saved), after=3, steps=2, global_batch_size=6)
    caplog.clear()
    loader = resumed(config, changed)
    loader.align(5, global_batch_size=6)

    assert loader.consumed_samples == 3 * 4 + 2 * 6
    assert not caplog.records
    expected = r"consumed 24 samples, expected 30 at step 6: 12 samples, and 3 steps of 6 samples"
    with pytest.raises(ResumeError, match=expected):
        resumed(config, changed).align(6, global_batch_size=6)


def test_it_may_change_again_and_back(config: Config, saved: BlendCorpusDataLoader) -> None:
    changed = trained(resumed(config, saved), after=3, steps=2, global_batch_size=6)
    back = trained(resumed(config, changed), after=5, steps=1, global_batch_size=4)

    assert back.consumed_samples == 3 * 4 + 2 * 6 + 4
    assert paces_in(back) == [
        {"step": 0, "consumed_samples": 0, "global_batch_size": 4},
        {"step": 3, "consumed_samples": 12, "global_batch_size": 6},
        {"step": 5, "consumed_samples": 24, "global_batch_size": 4},
    ]
    assert resumed(config, back).consumed_samples == 28


def test_another_global_batch_size_does_not_excuse_a_wrong_place(
    config: Config, saved: BlendCorpusDataLoader
) -> None:
    """Here 12 samples happen to be 2 steps of the new size, but the run was at step 3."""
    with pytest.raises(ResumeError, match=r"has consumed 12 samples, expected 8 at step 2"):
        resumed(config, saved).align(2, global_batch_size=6)


def test_a_step_before_the_change_is_refused(config: Config, saved: BlendCorpusDataLoader) -> None:
    """Counting back would say 6 samples, which were never a place of this run."""
    changed = trained(resumed(config, saved), after=3, steps=0, global_batch_size=6)

    with pytest.raises(ResumeError, match="do not belong together"):
        resumed(config, changed).align(2, global_batch_size=6)


# States that do not tell a global batch size


def test_a_state_of_an_engines_loader_must_be_at_the_step(
    config: Config, saved: BlendCorpusDataLoader
) -> None:
    """It cannot tell another global batch size from another step."""
    engine = DataLoader(dataset_of(config), 4)
    engine.load_state_dict(saved.state_dict())  # and it reads those of a trainer
    loader = build(config)
    loader.load_state_dict(engine.state_dict())
    loader.align(3, global_batch_size=4)

    assert engine.consumed_samples == loader.consumed_samples == 12
    loader.load_state_dict(engine.state_dict())
    with pytest.raises(ResumeError, match=r"global_batch_size to the value of that run"):
        loader.align(3, global_batch_size=6)


@pytest.mark.parametrize("damaged", [7, [{"step": 3}], [{"step": 0.0, "consumed_samples": 12}], {}])
def test_a_damaged_state_is_refused(
    config: Config, saved: BlendCorpusDataLoader, damaged: object
) -> None:
    state = json.loads(saved.state_dict()[STATE_KEY]) | {PACE_KEY: damaged}

    with pytest.raises(ResumeError, match=r"has pace = .*The checkpoint is damaged"):
        build(config).load_state_dict({STATE_KEY: json.dumps(state)})


# Moved by hand


def test_a_place_set_by_hand_is_kept(
    config: Config, saved: BlendCorpusDataLoader, caplog: pytest.LogCaptureFixture
) -> None:
    """With the global batch size that the steps were made with, whatever it is now."""
    loader = build(config, local_batch_size=2)
    loader.set_consumed_by_global_step(3, 4)
    loader.align(3, global_batch_size=6)

    assert torch.equal(first(loader)[1], first(saved)[1])
    assert len(caplog.records) == 1


def test_a_place_set_by_hand_for_another_step_is_refused(config: Config) -> None:
    loader = build(config)
    loader.set_consumed_by_global_step(3, 4)

    with pytest.raises(ResumeError, match="has consumed 12 samples, expected 0 at step 0"):
        loader.align(0, global_batch_size=4)


def test_a_step_below_0_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match="step is -1"):
        build(config).set_consumed_by_global_step(-1, 4)


def test_without_a_state_it_moves_to_the_step_and_says_so(
    config: Config, saved: BlendCorpusDataLoader, caplog: pytest.LogCaptureFixture
) -> None:
    loader = build(config, local_batch_size=2)
    with caplog.at_level(logging.WARNING):
        loader.align(3, global_batch_size=4)

    assert loader.state_dict() == saved.state_dict()
    assert torch.equal(first(loader)[1], first(saved)[1])
    assert "contains no data loader state" in caplog.text


def test_a_fresh_run_logs_no_warning(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    build(config).align(0, global_batch_size=4)

    # The warning says that the stand-in for a tokenizer cannot be read.
    assert not [record for record in caplog.records if record.name != dataloader.__name__]

"""A run that leaves out slots: what it reads, saves, refuses and reports."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.progress import progress
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.state import STATE_KEY
from tests.conftest import WriteBlend

CORPORA = {"web": (0.6, [700, 500]), "code": (0.4, [350])}


@pytest.fixture
def config(write_blend: WriteBlend) -> BlendConfig:
    return write_blend(CORPORA, seq_length=8)


def skipping(config: BlendConfig, *stretches: tuple[int, int], **options: Any) -> DataLoader:
    loader = DataLoader(build_datasets(config).train, 4, **options)
    if stretches:
        loader.set_skips(stretches)
    return loader


def rows(loader: DataLoader, batches: int) -> list[torch.Tensor]:
    stream = iter(loader)
    return [row for _ in range(batches) for row in next(stream).input_ids]


def slots_read(dataset: Dataset, read: list[torch.Tensor], *, most: int = 200) -> list[int]:
    """The slots whose samples were read, in this order."""
    known = {dataset[slot].input_ids.tobytes(): slot for slot in reversed(range(most))}
    return [known[row.numpy().tobytes()] for row in read]


def test_skipped_slots_are_not_read_and_all_others_are_in_their_place(config: BlendConfig) -> None:
    """The skip begins and ends within a batch; two ranks leave out the same slots."""
    train = build_datasets(config).train
    assert train is not None
    ranks = [skipping(config, (6, 17), dp_rank=rank, dp_world_size=2) for rank in range(2)]
    read = [slots_read(train, rows(loader, 2)) for loader in ranks]

    assert read == [[0, 1, 2, 3, 19, 20, 21, 22], [4, 5, 17, 18, 23, 24, 25, 26]]
    assert [loader.consumed_samples for loader in ranks] == [27, 27]


def test_a_run_without_skips_saves_the_same_state_as_ever(config: BlendConfig) -> None:
    plain, empty = skipping(config), skipping(config)
    empty.set_skips([])
    states = [json.loads(each.state_dict()[STATE_KEY]) for each in (plain, empty)]

    assert states[0] == states[1]
    assert "skips" not in states[0]


def test_an_interrupted_run_reads_what_an_uninterrupted_one_reads(config: BlendConfig) -> None:
    """Also where windows get longer in between: the positions of corpora include skipped slots."""
    stretches = [(6, 17), (21, 40)]
    whole = rows(skipping(config, *stretches), 8)
    loader = skipping(config, *stretches)
    parts = rows(loader, 3)
    resumed = skipping(config, *stretches)
    resumed.load_state_dict(loader.state_dict())
    parts += rows(resumed, 5)

    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_a_change_of_data_begins_after_the_skipped_slots(config: BlendConfig) -> None:
    """The next phase continues each corpus as if the skipped windows had been read."""
    longer = dataclasses.replace(config, seq_length=12, on_change="new_segment")
    with_skip, without = skipping(config, (8, 16)), skipping(config)
    rows(with_skip, 3)
    rows(without, 5)
    continued = [skipping(longer, (8, 16)), skipping(longer)]
    for loader, before in zip(continued, (with_skip, without), strict=True):
        loader.load_state_dict(before.state_dict())
    read = [rows(loader, 4) for loader in continued]

    assert continued[0].consumed_samples == continued[1].consumed_samples == 36
    assert all(torch.equal(one, other) for one, other in zip(*read, strict=True))


def test_what_was_trained_on_cannot_be_skipped_any_more(config: BlendConfig) -> None:
    before = skipping(config)
    rows(before, 3)
    message = (
        r"the skipped slots 8 to 11 were trained on .* consumed 12 samples.*load a checkpoint "
        r"from before slot 8"
    )

    with pytest.raises(ResumeError, match=message):
        skipping(config, (8, 20)).load_state_dict(before.state_dict())


@pytest.mark.parametrize("now", [[], [(6, 10)]])
def test_a_past_skip_can_neither_disappear_nor_shrink(
    config: BlendConfig, now: list[tuple[int, int]]
) -> None:
    before = skipping(config, (6, 17))
    rows(before, 2)

    with pytest.raises(ResumeError, match=r"slots (6|10) to 16 were skipped before .*, but are"):
        skipping(config, *now).load_state_dict(before.state_dict())


def test_a_future_skip_may_change(config: BlendConfig) -> None:
    """At slot 8, the skip from there on is past: the position has jumped over it."""
    train = build_datasets(config).train
    assert train is not None
    before = skipping(config, (12, 20))
    rows(before, 2)
    resumed = skipping(config, (8, 10), (14, 30))
    resumed.load_state_dict(before.state_dict())

    assert resumed.consumed_samples == 10
    assert slots_read(train, rows(resumed, 2)) == [10, 11, 12, 13, 30, 31, 32, 33]


def test_the_digests_are_of_samples_that_were_trained_on(config: BlendConfig) -> None:
    """A state that claims other skips disagrees with itself."""
    loader = skipping(config, (6, 17))
    rows(loader, 2)
    state = json.loads(loader.state_dict()[STATE_KEY])

    assert state["skips"] == [{"first_slot": 6, "stop_slot": 17}]
    assert (state["consumed_samples"], len(state["recent_tokens"])) == (19, 8 * 8)
    for skips in ([{"first_slot": 5, "stop_slot": 17}], [{"first_slot": 5}], 3):
        forged = {STATE_KEY: json.dumps(state | {"skips": skips})}
        with pytest.raises(ResumeError, match=r"other samples before sample 19|damaged skips"):
            skipping(config, (6, 17)).load_state_dict(forged)


def test_skipped_samples_do_not_count_as_read(config: BlendConfig) -> None:
    loader = skipping(config, (6, 17))
    rows(loader, 5)
    dataset = loader.dataset
    left = [slot for slot in range(31) if not 6 <= slot < 17]
    own = [dataset[slot].corpus for slot in left]
    reached = progress(dataset, loader.consumed_samples)

    assert dataset.draws_before(31).tolist() == [own.count(name) for name in dataset.corpora]
    assert np.allclose(reached.shares, [own.count(name) / 20 for name in dataset.corpora])
    assert reached.tokens.sum() == 20 * 8
    assert dataset[18].draw == build_datasets(config).train[18].draw  # pyright: ignore


def test_the_originals_order_skips_nothing(config: BlendConfig, tmp_path: Path) -> None:
    original = dataclasses.replace(
        config,
        order="blendcorpus",
        train_samples=100,
        eval_samples=0,
        data_cache_path=tmp_path,
        split="100,0,0",
    )

    with pytest.raises(ConfigError, match="in which no slots can be skipped"):
        skipping(original, (0, 4))

"""Balanced steps of a loader: the same samples in each step, on any ranks, whatever else is set."""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from blendtitan import BlendConfig, BlendedDataset, DataLoader, SegmentConfig, build_datasets
from blendtitan.balance import balance_steps
from blendtitan.dataset.attention_cost import DocumentLens, attention_costs
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.loader import Batch
from blendtitan.order.balance import duration, unbalanced
from blendtitan.order.course import ChangedCourse, Skips
from tests.conftest import WriteBlend

CORPORA = {"web": (0.6, [900, 700]), "code": (0.4, [550])}
MICRO_BATCH = 2
STEP = 24
"""Samples of a step."""

Row = tuple[int, ...]


@pytest.fixture
def config(write_blend: WriteBlend) -> BlendConfig:
    return write_blend(CORPORA, seq_length=16, provide_attention_mask=True)


@pytest.fixture
def dataset(config: BlendConfig) -> BlendedDataset:
    dataset = build_datasets(config).train
    assert isinstance(dataset, BlendedDataset)
    return dataset


def loaders(
    dataset: BlendedDataset, ranks: int, *, skips: Skips | None = None, num_workers: int = 0
) -> list[DataLoader]:
    """A balanced loader for each rank."""
    found: list[DataLoader] = []
    for rank in range(ranks):
        loader = DataLoader(
            dataset, MICRO_BATCH, dp_rank=rank, dp_world_size=ranks, num_workers=num_workers
        )
        if skips is not None:
            loader.replace(course=ChangedCourse(MICRO_BATCH, rank, ranks, skips=skips))
        balance_steps(loader, batches_per_step=STEP // MICRO_BATCH // ranks)
        found.append(loader)
    return found


def read_steps(balanced: Sequence[DataLoader], num_steps: int) -> list[list[list[Row]]]:
    """For each step the rows of each rank, in the order read."""
    streams = [iter(loader) for loader in balanced]
    steps: list[list[list[Row]]] = []
    for _ in range(num_steps):
        batches = STEP // MICRO_BATCH // len(balanced)
        read = [torch.cat([b.input_ids for b in islice(s, batches)]) for s in streams]
        steps.append([[tuple(row) for row in rows.tolist()] for rows in read])
    return steps


def plain_steps(dataset: BlendedDataset, num_steps: int, *, after: int = 0) -> list[list[Row]]:
    """The sorted rows of each step in the global order."""
    stream = DataLoader(dataset, STEP, num_workers=0)
    stream.consumed_samples = after
    return [sorted(map(tuple, b.input_ids.tolist())) for b in islice(stream, num_steps)]


def merged(steps: list[list[list[Row]]]) -> list[list[Row]]:
    return [sorted(row for rows in of_ranks for row in rows) for of_ranks in steps]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_each_step_keeps_its_samples_on_any_number_of_ranks(
    dataset: BlendedDataset, ranks: int, num_workers: int
) -> None:
    steps = read_steps(loaders(dataset, ranks, num_workers=num_workers), 9)

    assert merged(steps) == plain_steps(dataset, 9)


def test_rows_of_similar_cost_run_together(dataset: BlendedDataset) -> None:
    """On each of twelve ranks with one micro batch and two of six: less waiting than without."""
    lens = DocumentLens.read(dataset.rows)
    for ranks in (6, 12):
        before = after = 0
        courses = [loader.course for loader in loaders(dataset, ranks)]
        for first in range(0, 20 * STEP, STEP):
            costs = attention_costs(dataset, np.arange(first, first + STEP), lens)
            deal = np.stack([course.slots(first) for course in courses], axis=1) - first
            before += duration(costs, unbalanced(STEP, ranks=ranks, micro_batch=MICRO_BATCH))
            after += duration(costs, deal)

        assert after < 0.9 * before


def test_skipped_slots_stay_out(dataset: BlendedDataset) -> None:
    """A course with both: the step is filled with later samples, and balanced."""
    skips = Skips.of([(5, 12), (24, 60), (100, 101)])
    steps = read_steps(loaders(dataset, 3, skips=skips), 4)
    plain = DataLoader(dataset, STEP, num_workers=0)
    plain.replace(course=ChangedCourse(STEP, 0, 1, skips=skips))

    assert merged(steps) == [
        sorted(map(tuple, batch.input_ids.tolist())) for batch in islice(plain, 4)
    ]


def test_segments_stay_as_planned(config: BlendConfig) -> None:
    segments = (SegmentConfig(first_slot=31, shares={"web": 0.1}),)
    dataset = build_datasets(dataclasses.replace(config, segments=segments)).train
    assert isinstance(dataset, BlendedDataset)

    assert merged(read_steps(loaders(dataset, 2), 4)) == plain_steps(dataset, 4)


def test_a_run_continues_on_other_ranks_and_without_balance(dataset: BlendedDataset) -> None:
    """The state is the one without balance, byte for byte."""
    state, seen = DataLoader(dataset, 1).state_dict(), list[list[Row]]()
    for ranks in (2, 3, 6):
        balanced = loaders(dataset, ranks)
        for loader in balanced:
            loader.load_state_dict(state)
        seen += merged(read_steps(balanced, 3))
        (state,) = {loader.state_dict()["blendtitan"] for loader in balanced}
        state = {"blendtitan": state}
    plain = DataLoader(dataset, STEP)
    plain.load_state_dict(state)

    assert seen == plain_steps(dataset, 9)
    assert plain.consumed_samples == 9 * STEP
    assert plain.state_dict() == state


def test_a_changed_run_is_balanced_too(config: BlendConfig) -> None:
    """Its windows come from the remainders of the epochs that the change interrupted."""
    before = DataLoader(build_datasets(config).train, STEP)
    list(islice(before, 2))
    changed = dataclasses.replace(config, seq_length=40, on_change="new_segment")
    dataset = build_datasets(changed).train
    assert isinstance(dataset, BlendedDataset)
    balanced = loaders(dataset, 2)
    for loader in balanced:
        loader.load_state_dict(before.state_dict())
    resumed = balanced[0].dataset
    assert isinstance(resumed, BlendedDataset)

    assert resumed.order.begun is not None
    assert merged(read_steps(balanced, 6)) == plain_steps(resumed, 6, after=2 * STEP)


def test_a_state_within_a_step_is_an_error(dataset: BlendedDataset) -> None:
    (loader,) = loaders(dataset, 1)
    next(iter(loader))
    state = DataLoader(dataset, 5)
    next(iter(state))

    message = f"within an optimizer step, which begins after 0 and has {STEP}"
    with pytest.raises(ResumeError, match=f"2 consumed samples are {message}"):
        loader.state_dict()
    with pytest.raises(ResumeError, match=f"5 consumed samples are {message}"):
        loader.load_state_dict(state.state_dict())
    with pytest.raises(ResumeError, match=f"9 consumed samples are {message}"):
        loader.set_consumed_by_global_step(1, 9)


def test_steps_of_other_sizes_keep_their_samples_too(dataset: BlendedDataset) -> None:
    """Two steps of 24 samples, then steps of 12; slots 20 to 29 are skipped."""
    skips = Skips.of([(20, 30)])
    streams: list[Iterator[Batch]] = []
    for rank in range(2):
        loader = DataLoader(dataset, MICRO_BATCH, dp_rank=rank, dp_world_size=2, num_workers=0)
        loader.replace(course=ChangedCourse(MICRO_BATCH, rank, 2, skips=skips))
        balance_steps(loader, batches_per_step=6, later=[(58, 3)])
        streams.append(iter(loader))
    steps = [
        sorted(tuple(row) for s in streams for b in islice(s, n) for row in b.input_ids.tolist())
        for n in (6, 6, 3, 3)
    ]
    slots = [slot for slot in range(82) if not 20 <= slot < 30]
    rows = [tuple(dataset[slot].input_ids.tolist()) for slot in slots]

    stops = [0, 24, 48, 60, 72]
    assert steps == [sorted(rows[start:stop]) for start, stop in pairwise(stops)]


def test_a_new_number_of_samples_per_step_begins_where_the_loader_is(
    dataset: BlendedDataset,
) -> None:
    (loader,) = loaders(dataset, 1)
    list(islice(loader, STEP // MICRO_BATCH))
    balance_steps(loader, batches_per_step=5)
    list(islice(loader, 5))
    loader.state_dict()

    assert loader.consumed_samples == STEP + 5 * MICRO_BATCH


def test_a_loader_returns_to_a_state_from_before_its_steps_were_balanced(
    dataset: BlendedDataset,
) -> None:
    """In the first two steps, the run was not balanced."""
    plain = DataLoader(dataset, STEP)
    states = [plain.state_dict() for _ in islice(plain, 3)]
    balanced = loaders(dataset, 2)
    for loader in balanced:
        loader.load_state_dict(states[1])
        balance_steps(loader, batches_per_step=6)
        loader.load_state_dict(states[0])

    assert merged(read_steps(balanced, 4)) == plain_steps(dataset, 4, after=STEP)
    balance_steps(balanced[0], batches_per_step=18)  # from slot 120 on, in steps of 72
    with pytest.raises(ResumeError, match="from 120 samples on, in steps of 72, which the posi"):
        balanced[0].load_state_dict(states[0])


def test_without_masks_or_without_end_there_is_nothing_to_balance(
    dataset: BlendedDataset, config: BlendConfig
) -> None:
    plain = build_datasets(dataclasses.replace(config, provide_attention_mask=False)).train

    with pytest.raises(ConfigError, match="needs provide_attention_mask = true"):
        balance_steps(DataLoader(plain, 1), batches_per_step=1)
    with pytest.raises(ConfigError, match="with num_samples cannot be balanced"):
        balance_steps(DataLoader(dataset, 1, num_samples=9), batches_per_step=1)
    with pytest.raises(ConfigError, match="batches_per_step is 0"):
        balance_steps(DataLoader(dataset, 1), batches_per_step=0)

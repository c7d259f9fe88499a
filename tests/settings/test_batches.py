"""The batch arithmetic of a run."""

import pytest

from blendtitan.errors import ConfigError
from blendtitan.settings.batches import check_batches, check_length, data_ranks


@pytest.mark.parametrize(("size", "local", "ranks"), [(8, 2, 4), (16, 2, 4), (-1, 3, 5), (6, 6, 1)])
def test_whole_micro_batches_of_every_rank_are_accepted(size: int, local: int, ranks: int) -> None:
    check_batches(size, local_batch_size=local, ranks=ranks)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (
            10,
            r"is 10, expected a multiple of 8 \(training\.local_batch_size = 2 x 4 data-parallel ",
        ),
        (10, r"Nearest: 8 and 16\."),
        (4, r"Nearest: 8\."),
        (0, r"is 0, expected a multiple of 8"),
        (-2, r"is -2, .* or -1 for one micro batch of every rank"),
    ],
)
def test_others_are_refused_with_the_nearest_sizes(size: int, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_batches(size, local_batch_size=2, ranks=4)


def test_only_micro_batches_are_checked_if_the_ranks_are_unknown() -> None:
    expected = r"expected a multiple of 3 \(training\.local_batch_size = 3\)"
    with pytest.raises(ConfigError, match=expected):
        check_batches(10, local_batch_size=3, ranks=1, are_all_ranks=False)


@pytest.mark.parametrize(
    ("degrees", "ranks"),
    [((1, -1, 1), 8), ((2, -1, 2), 4), ((1, 4, 2), 4), ((2, 2, 2), 4), ((1, 1, 8), 1)],
)
def test_data_parallel_ranks_are_the_processes_that_hold_different_samples(
    degrees: tuple[int, int, int], ranks: int
) -> None:
    replicate, shard, model = degrees

    assert data_ranks(8, replicate=replicate, shard=shard, model=model) == ranks


@pytest.mark.parametrize("degrees", [(1, -1, 3), (1, 4, 1), (3, -1, 1), (2, 8, 1), (0, -1, 1)])
def test_degrees_that_do_not_make_up_the_processes_are_refused(
    degrees: tuple[int, int, int],
) -> None:
    replicate, shard, model = degrees
    with pytest.raises(ConfigError, match="the run has 8 processes, expected"):
        data_ranks(8, replicate=replicate, shard=shard, model=model)


@pytest.mark.parametrize("steps", [10**18, 10**15 // 4 + 1])
def test_a_run_longer_than_the_order_is_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match=r"training\.steps is .*, expected at most 250,000,000"):
        check_length(steps, global_batch_size=4, seq_len=8)


def test_the_longest_run_is_accepted() -> None:
    check_length(10**15 // 4, global_batch_size=4, seq_len=8)

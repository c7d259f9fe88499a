"""Which blocks are staged: never more than the disk holds, and never at the cost of more bytes."""

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.staging.planner import MOST_FETCHED, Planner, PredictedBytes, Reads, predicted

WINDOW, BLOCK = 1, 8

Traces = st.lists(st.tuples(st.integers(0, 9), st.integers(1, BLOCK)), max_size=200)


def reads_of(trace: Iterable[tuple[int, int]]) -> list[Reads]:
    """One read after the other, of some bytes of a block."""
    return [
        Reads(i + 1, np.array([block]), np.array([num_bytes]))
        for i, (block, num_bytes) in enumerate(trace)
    ]


def shuffled_epochs(seed: int, *, epochs: float, blocks: int, nodes: int = 1) -> list[Reads]:
    """The windows that one of some nodes reads of shuffled epochs."""
    windows, generator = blocks * (BLOCK // WINDOW), np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(windows) for _ in range(int(epochs) + 1)])
    own = order[: round(epochs * windows)][::nodes]
    return reads_of((int(window) // BLOCK, WINDOW) for window in own)


def planned(reads: list[Reads], capacity: int, *, blocks: int = 10) -> PredictedBytes:
    return predicted(Planner(np.full(blocks, BLOCK), capacity), reads)


def lru_bytes(reads: list[Reads], capacity: int) -> int:
    """Bytes that a cache fetches which drops the block that was read longest ago."""
    cached: OrderedDict[int, None] = OrderedDict()
    fetched = 0
    for each in reads:
        block = int(each.blocks[0])
        if block not in cached:
            fetched += BLOCK
            if len(cached) >= capacity // BLOCK:
                cached.popitem(last=False)
        cached[block] = None
        cached.move_to_end(block)
    return fetched


@given(Traces, st.integers(1, 100), st.integers(1, 300))
def test_any_reads_fit_on_the_disk_and_cost_few_bytes(
    trace: list[tuple[int, int]], capacity: int, most_ahead: int
) -> None:
    """However few blocks the disk holds, and however little of the future is known."""
    planner = Planner(np.full(10, BLOCK), capacity)
    found = predicted(planner, reads_of(trace), most_ahead=most_ahead)

    assert found.most_on_disk <= capacity
    assert found.read_bytes == sum(num_bytes for _, num_bytes in trace)
    assert found.staged_bytes + found.window_bytes <= MOST_FETCHED * found.read_bytes
    assert not planner.demand.any()


@given(st.integers(0, 99), st.sampled_from([0.5, 1, 1.5, 3]), st.integers(1, 4), st.integers(1, 12))
def test_shuffled_epochs_cost_at_most_what_a_cache_by_recent_use_does(
    seed: int, epochs: float, nodes: int, num_blocks: int
) -> None:
    reads = shuffled_epochs(seed, epochs=epochs, blocks=10, nodes=nodes)
    found = planned(reads, num_blocks * BLOCK)
    recent = lru_bytes(reads, num_blocks * BLOCK)

    assert found.staged_bytes + found.window_bytes <= MOST_FETCHED * recent


@pytest.mark.parametrize("epochs", [1, 2, 3.5])
def test_a_disk_that_holds_an_epoch_gets_every_block_once(epochs: float) -> None:
    found = planned(shuffled_epochs(1, epochs=epochs, blocks=10), 10 * BLOCK)

    assert (found.staged_bytes, found.window_bytes) == (10 * BLOCK, 0)


def test_a_smaller_disk_keeps_blocks_for_all_epochs() -> None:
    """Of ten blocks it holds three. The other seven are read three times, window by window."""
    found = planned(shuffled_epochs(1, epochs=3, blocks=10), 3 * BLOCK)

    assert (found.staged_bytes, found.window_bytes) == (3 * BLOCK, 3 * 7 * BLOCK)


def test_many_nodes_do_not_each_fetch_every_block() -> None:
    """A node that reads an eighth of every block reads that alone."""
    found = planned(shuffled_epochs(1, epochs=1, blocks=10, nodes=8), 10 * BLOCK)

    assert (found.staged_bytes, found.window_bytes) == (0, found.read_bytes)


def test_windows_in_order_need_room_for_a_single_block() -> None:
    """A block without further reads is dropped."""
    found = planned(reads_of((window // BLOCK, WINDOW) for window in range(10 * BLOCK)), BLOCK)

    assert (found.staged_bytes, found.window_bytes) == (10 * BLOCK, 0)
    assert found.most_on_disk == BLOCK


def test_a_block_that_saves_more_bytes_takes_the_place_of_another() -> None:
    """Block 0 is read again at the end, and fetched again; block 1 is read ten times before."""
    trace = [(0, BLOCK), *[(1, BLOCK)] * 10, (0, BLOCK)]
    found = planned(reads_of(trace), BLOCK)

    assert (found.staged_bytes, found.window_bytes) == (3 * BLOCK, 0)


def test_the_end_of_the_run_is_known() -> None:
    """A run that reads half an epoch does not fetch blocks for reads that never come."""
    found = planned(shuffled_epochs(1, epochs=0.5, blocks=10), 10 * BLOCK)

    assert found.staged_bytes + found.window_bytes <= MOST_FETCHED * found.read_bytes

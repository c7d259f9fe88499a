"""Threads where something waits, and only there; results and errors in the order of the items."""

import threading

import pytest

from blendtitan.files import io_map


def test_results_are_in_the_order_of_the_items() -> None:
    assert io_map(lambda number: number * 2, range(1000)) == list(range(0, 2000, 2))
    assert io_map(lambda number: number, range(0)) == []


def test_waiting_reads_wait_in_parallel() -> None:
    """One after the other, they would never get past the barrier."""
    together = threading.Barrier(16)

    def wait(number: int) -> int:
        if number % 8 == 0 and number < 16 * 8:  # the first items that 16 threads meet
            together.wait(timeout=60)
        return number

    assert io_map(wait, range(1000)) == list(range(1000))


def test_a_few_reads_wait_in_parallel_as_well() -> None:
    """Each may be many requests to a store, one after the other."""
    together = threading.Barrier(8)
    io_map(lambda _: together.wait(timeout=60), range(8))


@pytest.mark.parametrize("waits", [False, True])
def test_the_error_of_the_first_item_that_fails_is_raised(waits: bool) -> None:
    """Whichever thread meets one first: the same error every time."""
    later_failed = threading.Event()

    def fail(number: int) -> int:
        if number == 3 and waits:
            later_failed.wait(timeout=60)
        if number == 20:
            later_failed.set()
        if number in (3, 20):
            raise ValueError(f"item {number}")
        return number

    with pytest.raises(ValueError, match="item 3"):
        io_map(fail, range(1000))


def test_after_an_error_no_other_item_is_started() -> None:
    begun: list[int] = []

    def fail(number: int) -> None:
        begun.append(number)
        raise ValueError("the first")

    with pytest.raises(ValueError, match="the first"):
        io_map(fail, range(10_000))
    assert len(begun) <= 16

"""Many small reads at a time, by as many threads as wait for the disk."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

# Reads wait for the disk, not for Python: more threads than cores.
_MOST_THREADS = 16
# How long the threads work before they are looked at, and may become more.
_LOOK_SECONDS = 0.002
_ITEMS_PER_RUN = 8


def waiting_map(function: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """``[function(item) for item in items]``, for functions that may wait for a file system.

    Where files are cached nothing waits, and threads only take Python's lock from each other: one
    works alone. As long as more than half of the time passes in waiting, they become more.

    Raises:
        Exception: What ``function`` raised, of the first item for which it did.
    """
    results: dict[int, list[B]] = {}
    errors: dict[int, Exception] = {}
    runs = iter(range(0, len(items), _ITEMS_PER_RUN))  # shared: each run is taken once, in order

    def work() -> None:
        for start in runs:
            try:
                results[start] = [function(item) for item in items[start : start + _ITEMS_PER_RUN]]
            except Exception as error:
                errors[start] = error
                _drop(runs)

    with ThreadPoolExecutor(_MOST_THREADS) as pool:
        try:
            working = {pool.submit(work)}
            while working:
                began, busy_before = time.perf_counter(), time.process_time()
                working = wait(working, _LOOK_SECONDS).not_done
                busy = time.process_time() - busy_before
                if 2 * busy < time.perf_counter() - began:
                    more = min(len(working), _MOST_THREADS - len(working))
                    working |= {pool.submit(work) for _ in range(more)}
        finally:
            _drop(runs)  # Also after an interrupt, so that the threads end.
    if errors:
        raise errors[min(errors)]
    return [result for start in sorted(results) for result in results[start]]


def _drop(runs: Iterator[int]) -> None:
    """Let nobody take another run."""
    for _ in runs:
        pass

"""Threads that read ahead: each thing is read once, by a thread or by the one who wants it."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from blendtitan.reading_threads import ReadingThreads
from tests.conftest import wait_until


class Source:
    """Counts what is read; reads wait while the gate is closed."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self._gate = threading.Event()
        self._gate.set()

    def __call__(self, at: int) -> int:
        """Read ``at``: its square."""
        self.read.append(at)
        self._gate.wait(60)
        if at < 0:
            raise ValueError(at)
        return at * at

    @contextmanager
    def closed(self) -> Iterator[None]:
        """While this lasts, what is begun does not end."""
        self._gate.clear()
        try:
            yield
        finally:
            self._gate.set()


@pytest.mark.parametrize("num_threads", [1, 3])
def test_each_thing_is_read_once(num_threads: int) -> None:
    source = Source()
    threads = ReadingThreads(source, num_threads)
    jobs = [threads.ask(at) for at in range(200)]

    assert [job.result() for job in jobs] == [at * at for at in range(200)]
    threads.close()
    assert sorted(source.read) == list(range(200))


def test_what_no_thread_has_begun_is_read_by_the_one_who_wants_it() -> None:
    source = Source()
    threads = ReadingThreads(source, 1)
    with source.closed():
        first = threads.ask(1)
        wait_until(lambda: source.read == [1])
        second = threads.ask(2)
        taker = threading.Thread(target=second.result)
        taker.start()
        wait_until(lambda: source.read == [1, 2])
    taker.join()

    assert (first.result(), second.result()) == (1, 4)


def test_errors_reach_the_one_who_wants_it_and_the_thread_goes_on() -> None:
    threads = ReadingThreads(Source(), 1)
    bad, good = threads.ask(-1), threads.ask(3)

    with pytest.raises(ValueError, match="-1"):
        bad.result()
    assert good.result() == 9


def test_when_closed_they_end_what_is_begun_and_begin_nothing_more() -> None:
    source = Source()
    threads = ReadingThreads(source, 2)
    with source.closed():
        jobs = [threads.ask(at) for at in range(50)]
        wait_until(lambda: len(source.read) == 2)
        ender = threading.Thread(target=threads.close)
        ender.start()
        wait_until(lambda: threads._jobs.qsize() == 2)  # pyright: ignore - one end for each thread
    ender.join()

    assert sorted(job.result() for job in jobs[:2]) == [0, 1]
    assert sorted(source.read) == [0, 1]


def test_when_forgotten_they_end() -> None:
    before = set(threading.enumerate())
    threads = ReadingThreads(Source(), 2)
    own = set(threading.enumerate()) - before
    del threads
    gc.collect()

    assert len(own) == 2
    assert not any(thread.is_alive() for thread in own)

"""Threads that read what is asked of them, in the order of asking.

Lighter than an executor's futures: what they cost is what a training step waits for a batch that
was read ahead.
"""

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Job(Generic[T]):
    """One thing to read: by whoever begins it first, a thread or the one who wants it."""

    __slots__ = ("_begun", "_ended", "_outcome", "_read", "at")

    def __init__(self, read: Callable[[int], T], at: int) -> None:
        self.at = at
        self._read = read
        self._begun = threading.Lock()
        self._ended = threading.Lock()  # until it is read
        self._ended.acquire()
        self._outcome: T | BaseException

    def begin(self) -> None:
        """Read it, unless it was begun elsewhere."""
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._outcome = self._read(self.at)
        except BaseException as error:
            self._outcome = error  # for the one who wants it
        self._ended.release()

    def drop(self) -> None:
        """See that it is not begun from now on."""
        self._begun.acquire(blocking=False)

    def result(self) -> T:
        """What was read, read here if no thread has begun; or the error of reading it."""
        self.begin()
        with self._ended:
            pass
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


class ReadingThreads(Generic[T]):
    """Threads that call ``read``. They end when this is closed or forgotten, or the process ends.

    Args:
        read: What to call with what is asked for. It must not know this object.
        num_threads: At least 1.
    """

    def __init__(self, read: Callable[[int], T], num_threads: int) -> None:
        self._read = read
        self._jobs: SimpleQueue[Job[T] | None] = SimpleQueue()
        # Daemons, or the end of the process would wait for them before it closes this.
        threads = [
            threading.Thread(
                target=_work, args=(self._jobs,), name=f"blendtitan-read_{number}", daemon=True
            )
            for number in range(num_threads)
        ]
        for thread in threads:
            thread.start()
        self.close = weakref.finalize(self, _end, self._jobs, threads)
        """End the threads, once what they have begun is read."""

    def ask(self, at: int) -> Job[T]:
        """Have a thread read ``at``."""
        job = Job(self._read, at)
        self._jobs.put(job)
        return job


def _work(jobs: SimpleQueue[Job[T] | None]) -> None:
    while (job := jobs.get()) is not None:
        job.begin()
        del job  # What was read is no longer needed here while this waits.


def _end(jobs: SimpleQueue[Job[T] | None], threads: list[threading.Thread]) -> None:
    while not jobs.empty():
        if (job := jobs.get()) is not None:
            job.drop()
    for _ in threads:
        jobs.put(None)
    for thread in threads:
        thread.join()

"""Processes of this machine."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.synchronize import Event
from typing import Any

from blendtitan.errors import InputError
from blendtitan.prepare.report import progress_bar
from blendtitan.prepare.workers import Work, do_work
from blendtitan.tokenizers.memory import return_freed_memory

_POLL_SECONDS = 0.2


class _StoppedError(Exception):
    """The command was interrupted."""


@dataclass(frozen=True, slots=True)
class _SharedSignals:
    """Signals in memory that all processes of a command share."""

    stopped: Event

    totals: Any
    """Bytes read, documents and tokens made so far."""

    def is_stopped(self) -> bool:
        return self.stopped.is_set()

    def add_bytes(self, num_bytes: int) -> None:
        # The one place that a job passes again and again.
        if self.stopped.is_set():
            raise _StoppedError
        with self.totals.get_lock():
            self.totals[0] += num_bytes

    def add_documents(self, num_documents: int, num_tokens: int) -> None:
        with self.totals.get_lock():
            self.totals[1] += num_documents
            self.totals[2] += num_tokens

    def read_totals(self) -> list[int]:
        """The totals, without the lock, which a killed worker may hold."""
        return list(self.totals.get_obj())


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """A pool of processes; Ctrl-C stops them all."""

    workers: int | None = None
    """Processes. None: as many as this process may use cores."""

    def num_workers(self, num_jobs: int) -> int:
        """Processes that share ``num_jobs`` jobs."""
        # macOS cannot restrict a process to some cores, and so has no affinity to ask for.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return max(1, min(self.workers or cores or 1, num_jobs))

    def run(self, work: Work) -> list[str]:
        """Do a plan: see ``Engine.run``."""
        context = _process_context()
        signals = _SharedSignals(context.Event(), context.Array(ctypes.c_longlong, 3))
        num_workers = self.num_workers(work.num_jobs)
        pool = ProcessPoolExecutor(
            num_workers, context, initializer=_start_worker, initargs=(work, signals, num_workers)
        )
        with pool:
            try:
                # Before the bar, which has a thread: a process with threads should not be copied.
                with interrupt_postponed(), warnings.catch_warnings():
                    # Python 3.12 warns of any thread, also of OpenBLAS's, which it ends first.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    futures = [pool.submit(_work, worker) for worker in range(num_workers)]
                with progress_bar(work) as show:
                    while wait(futures, timeout=_POLL_SECONDS).not_done:
                        if show:
                            show(*signals.read_totals())
            except BaseException:
                signals.stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return _errors(futures)


def _process_context() -> BaseContext:
    """How to start processes: as copies of this one, where that is safe.

    Copies share the memory of the tokenizer and need not load it again. A process with other
    threads may not be copied: what they hold at that moment would never be given back. macOS's
    own libraries do not allow it at all.
    """
    is_safe = sys.platform == "linux" and threading.active_count() == 1
    if is_safe:
        # Loading a tokenizer frees tens of megabytes, which each copy would make its own.
        return_freed_memory()
    return multiprocessing.get_context("fork" if is_safe else "spawn")


_shared: tuple[Work, _SharedSignals, int] | None = None


def _start_worker(work: Work, signals: _SharedSignals, num_workers: int) -> None:
    global _shared
    _shared = work, signals, num_workers
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    # A worker whose parent was killed would go on for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(worker: int) -> list[str]:
    assert _shared is not None
    work, signals, num_workers = _shared
    return do_work(work, worker, num_workers, signals=signals)


@contextmanager
def interrupt_postponed() -> Generator[None]:
    """Answer Ctrl-C when the block ends; processes started inside never answer it.

    A terminal sends it to all of them. The parent alone answers, through ``stopped``; but not while
    it copies itself, when Python drops what is raised.
    """
    is_main = threading.current_thread() is threading.main_thread()  # no other is interrupted
    received: list[int] = []
    # Another thread, such as OpenBLAS's, may be told of it, so that a mask alone is not enough.
    answer = is_main and signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if is_main:
            signal.signal(signal.SIGINT, answer)
        if received:
            signal.raise_signal(signal.SIGINT)


def _errors(futures: Iterable[Future[list[str]]]) -> list[str]:
    try:
        return sorted({error for future in futures for error in future.result()})
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, perhaps for want of memory. What was finished is kept: "
            "run again, with fewer --workers."
        ) from error

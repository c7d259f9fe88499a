"""Engines that run the processes of a plan: on this machine, in Ray, under MPI, or as ranks.

Every engine hands ``do_work`` to its processes and waits. No text passes through an engine, and
each process finds free jobs by itself, so the shards are the same with any engine.
"""

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any, Literal, cast

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError, InputError, requires_extra
from blendtitan.prepare.documents import Counts, Signals, read_part
from blendtitan.prepare.progress import Totals, shown_progress
from blendtitan.prepare.records import finished_record
from blendtitan.prepare.workers import Work, do_work
from blendtitan.tokenizers.fast import return_freed_memory
from blendtitan.visible import visible_logger

EngineName = Literal["local", "ray", "mpi"]

MAX_RETRIES = 3
"""Number of times that Ray restarts a task whose process was lost."""

Submit = Callable[[int], Future[list[str]]]
"""Starts the worker of an index."""

logger = visible_logger(__name__)

_KEPT = "Finished jobs are kept: run again, with fewer --workers."


class Engine(ABC):
    """Processes that share a plan."""

    poll_seconds = 1.0

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def num_workers(self, num_jobs: int) -> int:
        """Number of processes that share ``num_jobs`` jobs."""
        return max(1, min(self.workers, num_jobs))

    def run(self, work: Work) -> list[str]:
        """Do a plan, and return an error for each input that cannot be read.

        Raises:
            FastTierError: The fast tokenizer tier failed, so its earlier ids may be wrong, too.
            InputError: A process was killed, more often than the engine restarts it.
        """
        count = self.num_workers(work.num_jobs)
        with self.started(work, count) as (submit, totals):
            # Before the progress bar, which has a thread: a process with threads is not forked.
            with interrupt_postponed():
                futures = [submit(worker) for worker in range(count)]
            next(totals)  # an engine counts from here
            with shown_progress(_bytes_to_read(work), logger.info) as show:
                while wait(futures, timeout=self.poll_seconds).not_done:
                    show(totals)
            return sorted({error for future in futures for error in future.result()})

    @abstractmethod
    @contextmanager
    def started(self, work: Work, count: int) -> Generator[tuple[Submit, Iterator[Totals]]]:
        """Start processes for a plan, and end them when the block ends, even after an interrupt."""
        ...


class LocalEngine(Engine):
    """A pool of processes of this machine; Ctrl-C stops them all."""

    poll_seconds = 0.2

    def __init__(self, workers: int | None = None) -> None:
        # macOS cannot bind a process to cores.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        super().__init__(workers or cores or 1)

    @contextmanager
    def started(self, work: Work, count: int) -> Generator[tuple[Submit, Iterator[Totals]]]:
        """See ``Engine.started``."""
        context = _process_context()
        signals = _SharedSignals(context.Event(), context.Array(ctypes.c_longlong, 3))
        pool = ProcessPoolExecutor(
            count, context, initializer=_start_worker, initargs=(work, signals, count)
        )

        def submit(worker: int) -> Future[list[str]]:
            with warnings.catch_warnings():
                # Python 3.12 warns about any thread, even if it ends before a fork, as OpenBLAS's.
                warnings.simplefilter("ignore", DeprecationWarning)
                return pool.submit(_work, worker)

        with pool:
            try:
                yield submit, iter(signals.read_totals, None)
            except BrokenProcessPool as error:
                raise InputError(
                    f"a worker process was killed, perhaps because memory ran out. {_KEPT}"
                ) from error
            except BaseException:
                signals.stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


class RayEngine(Engine):
    """Ray tasks of one core each. Ray restarts a task whose process or machine was lost."""

    @contextmanager
    def started(self, work: Work, count: int) -> Generator[tuple[Submit, Iterator[Totals]]]:
        """See ``Engine.started``."""
        import ray
        from ray.exceptions import RayTaskError, WorkerCrashedError

        task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(do_work)
        shared = ray.put(work)
        tasks: dict[Future[list[str]], Any] = {}

        def submit(worker: int) -> Future[list[str]]:
            started = task.remote(shared, worker, count)
            future: Future[list[str]] = started.future()
            tasks[future] = started
            return future

        try:
            yield submit, finished_totals(work)
        except RayTaskError as error:
            raise error.cause from error
        except WorkerCrashedError as error:
            raise InputError(
                f"a Ray worker was lost {MAX_RETRIES + 1} times, perhaps because memory ran out. "
                f"{_KEPT}"
            ) from error
        finally:
            for future, started in tasks.items():
                if not future.done():
                    ray.cancel(started, force=True)


class MpiEngine(Engine):
    """The other processes of MPI's world."""

    def __init__(self, executor: Executor, workers: int) -> None:
        super().__init__(workers)
        self._executor = executor

    @contextmanager
    def started(self, work: Work, count: int) -> Generator[tuple[Submit, Iterator[Totals]]]:
        """See ``Engine.started``."""
        yield (
            lambda worker: self._executor.submit(do_work, work, worker, count),
            finished_totals(work),
        )


@contextmanager
def started_engine(name: EngineName, *, workers: int | None) -> Generator[Engine | None]:
    """The engine. MPI processes other than the first work here, and get None at the end.

    Args:
        name: ``local`` for processes of this machine; ``ray`` for a Ray cluster, or Ray on this
            machine; ``mpi`` for the processes that ``mpiexec`` started.
        workers: Processes. None: one for each available core.

    Raises:
        ConfigError: The library of the engine is not installed, or cannot be used.
    """
    if workers is not None:
        check_at_least("workers", workers, 1)
    if name == "local":
        yield LocalEngine(workers)
        return
    with (_ray_engine if name == "ray" else _mpi_engine)(workers) as engine:
        yield engine


@contextmanager
def _ray_engine(workers: int | None) -> Generator[Engine]:
    """The Ray that this process or RAY_ADDRESS is connected to, or a new one."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with requires_extra("ray", "--engine ray"):
        import ray
    is_ours = not ray.is_initialized()
    if is_ours:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise ConfigError(f"Ray cannot be reached: {error}") from error
    try:
        yield RayEngine(workers or int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if is_ours:
            ray.shutdown()


@contextmanager
def _mpi_engine(workers: int | None) -> Generator[Engine | None]:
    """The engine in the first process of MPI's world; None in the others, when it has finished."""
    with requires_extra("mpi", "--engine mpi"):
        import mpi4py  # noqa: F401
    try:
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"--engine mpi needs an MPI library, and mpi4py cannot load one ({error}). Load the "
            f"module of your cluster's MPI, or install one with `pip install mpich`."
        ) from error
    num_others = MPI.COMM_WORLD.Get_size() - 1
    if num_others == 0:
        raise ConfigError(
            "the engine 'mpi' was started as one process, expected a coordinator and at least "
            "one worker: mpiexec -n 3 blendtitan tokenize ..."
        )
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
        # Its type does not derive from the standard library's.
        pool = cast("Executor | None", executor)
        yield None if pool is None else MpiEngine(pool, min(workers or num_others, num_others))


class _StoppedError(Exception):
    """The command was interrupted."""


class _SharedSignals(Signals):
    """Signals in memory that the processes of this machine share."""

    def __init__(self, stopped: Any, totals: Any) -> None:
        self.stopped = stopped
        self._totals = totals

    def is_stopped(self) -> bool:
        return self.stopped.is_set()

    def add(self, num_bytes: int = 0, num_documents: int = 0, num_tokens: int = 0) -> None:
        # Every job calls this very often.
        if self.stopped.is_set():
            raise _StoppedError
        with self._totals.get_lock():
            for at, number in enumerate((num_bytes, num_documents, num_tokens)):
                self._totals[at] += number

    def read_totals(self) -> Totals:
        # Without the lock, which a killed worker may hold.
        num_bytes, documents, tokens = self._totals.get_obj()
        return num_bytes, documents, tokens


def _process_context() -> BaseContext:
    """The start method for processes: forks of this one, where that is safe.

    Forks share the memory of the tokenizer and need not load it again. A process with other
    threads must not be forked, because locks that they hold would never be released. The system
    libraries of macOS do not allow forks at all.
    """
    is_safe = sys.platform == "linux" and threading.active_count() == 1 and not _uses_store()
    if is_safe:
        # Loading a tokenizer frees tens of megabytes, which each fork would copy.
        return_freed_memory()
    return multiprocessing.get_context("fork" if is_safe else "spawn")


def _uses_store() -> bool:
    """Whether this process has read or written object storage, for which threads run in Rust."""
    remote = sys.modules.get("blendtitan.remote")
    return remote is not None and remote.is_used()


_shared: tuple[Work, _SharedSignals, int] | None = None


def _start_worker(work: Work, signals: _SharedSignals, num_workers: int) -> None:
    global _shared
    _shared = work, signals, num_workers
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    # A worker would otherwise outlive a killed parent.
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
    """Handle Ctrl-C when the block ends; processes started inside never handle it.

    A terminal sends it to all of them. Only the parent handles it, but not while it forks,
    because Python drops exceptions raised then.
    """
    is_main = threading.current_thread() is threading.main_thread()  # no other is interrupted
    received: list[int] = []
    # Another thread, such as OpenBLAS's, may receive it, so a mask alone is not enough.
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


def _bytes_to_read(work: Work) -> int:
    planned_bytes = sum(job.num_bytes for jobs in work.plan.values() for job in jobs)
    return planned_bytes - _finished(work)[0]


def finished_totals(work: Work) -> Iterator[Totals]:
    """Totals of the jobs that were finished since the first call, from the shared work folder."""
    before = _finished(work)
    while True:
        now = _finished(work)
        yield now[0] - before[0], now[1] - before[1], now[2] - before[2]


def _finished(work: Work) -> Totals:
    num_bytes, total = 0, Counts()
    for shard, jobs in work.plan.items():
        record = finished_record(shard, work.settings, work.tier)
        for job in jobs:
            counts = Counts() if record else read_part(job, work.settings, work.tier)
            if counts is not None:
                num_bytes += job.num_bytes
                total += counts
        total += record.counts if record else Counts()
    return num_bytes, total.documents, total.tokens

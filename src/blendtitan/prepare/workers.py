"""Many jobs at once, in several processes, of which each takes the next job that is free.

All processes of a command, and of other ranks on other machines, see the same plan. What is done
is seen in the work folder, what is being done in its claims. So processes may come and go.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from ctypes import c_longlong
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.claims import Claims
from blendtitan.prepare.join import is_finished, join_parts, write_rejects
from blendtitan.prepare.parts import Counts, Settings, read_part, write_part
from blendtitan.prepare.plan import Job, Plan, Shard
from blendtitan.prepare.ranks import Rank
from blendtitan.prepare.report import progress_bar
from blendtitan.tokenizers import Encoder, Tier

JOB_BYTES = 64_000_000
"""Default size of a job: seconds of work, and files of a size that file systems like."""

_POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeConfig:
    """How text files become shards."""

    tokenizer: Path
    """A SentencePiece model, a ``tokenizer.json``, or a folder that holds one of them."""

    keys: tuple[str, ...] = ("text",)
    """Fields or columns that hold texts. Several have a subfolder of the output each."""

    max_rejects: int = 0
    """Texts that may be left out, in all files together."""

    workers: int | None = None
    """Processes. None: as many as this process may use cores."""

    job_bytes: int = JOB_BYTES
    """Bytes of a plain file, or of row groups, that are done in one go."""

    overwrite: bool = False
    """Replace shards that were made with another tokenizer or key."""

    tier: Tier = "auto"
    """Which libraries may encode; the ids are the same."""

    rank: Rank = field(default_factory=Rank)
    """Which of the processes this is that share the work, on one or more machines."""

    def __post_init__(self) -> None:
        if self.max_rejects < 0:
            raise ConfigError(f"max_rejects is {self.max_rejects}, expected 0 or more")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers is {self.workers}, expected 1 or more")
        if self.job_bytes < 1:
            raise ConfigError(f"job_bytes is {self.job_bytes}, expected 1 or more")

    def num_workers(self, num_jobs: int) -> int:
        """Processes to start for ``num_jobs`` jobs."""
        # macOS cannot restrict a process to some cores, and so has no affinity to ask for.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return max(1, min(self.workers or cores or 1, num_jobs))


class _StoppedError(Exception):
    """The command was interrupted."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all worker processes of a command hold."""

    plan: Plan
    encoder: Encoder
    settings: Settings
    max_rejects: int

    stopped: Event
    """Set when the command is interrupted."""

    totals: Any
    """What they did so far: bytes read, documents and tokens made."""

    failed: Any
    """One number for each shard: 1 where its input cannot be read."""

    def add_bytes(self, num_bytes: int) -> None:
        """Count bytes that were read; the place to stop at."""
        if self.stopped.is_set():
            raise _StoppedError
        with self.totals.get_lock():
            self.totals[0] += num_bytes

    def add_documents(self, num_documents: int, num_tokens: int) -> None:
        """Count documents that were made."""
        with self.totals.get_lock():
            self.totals[1] += num_documents
            self.totals[2] += num_tokens

    def read_totals(self) -> list[int]:
        """Bytes, documents and tokens, without the lock, which a killed worker may hold."""
        return list(self.totals.get_obj())


class _Worker:
    """One process: does jobs, and joins their shards, until nothing is left to do."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._claims = Claims()
        self._shard_ids = {shard: i for i, shard in enumerate(shared.plan)}
        # Jobs that are not known to be finished yet.
        self._unfinished = {shard: dict.fromkeys(jobs) for shard, jobs in shared.plan.items()}

    def work(self) -> list[str]:
        """Do what is free until everything is finished; returns why inputs cannot be read."""
        errors: list[str] = []
        while not self._shared.stopped.is_set():
            jobs = [job for jobs in self._unfinished.values() for job in jobs]
            worked = False
            # Largest first, so that no process is left alone with a large one at the end.
            for job in sorted(jobs, key=lambda job: job.num_bytes, reverse=True):
                try:
                    worked |= self._work_on(job)
                except InputError as error:
                    self._shared.failed[self._shard_ids[job.shard]] = 1
                    errors.append(str(error))
            for shard in list(self._unfinished):
                worked |= self._close(shard)
            if not self._unfinished:
                break
            if not worked:
                # The rest is claimed by others, of which one may be killed.
                self._shared.stopped.wait(_POLL_SECONDS)
        return errors

    def _work_on(self, job: Job) -> bool:
        shard, settings = job.shard, self._shared.settings
        if shard not in self._unfinished or self._shared.failed[self._shard_ids[shard]]:
            return False
        if job not in self._unfinished[shard] or self._is_done(job):
            return False
        with self._claims.claimed(job.path("claim")) as is_claimed:
            # Another process may have finished it just before its claim was given back.
            if not is_claimed or self._is_done(job):
                return False
            write_part(job, self._shared.encoder, settings, self._shared)
        self._unfinished[shard].pop(job)
        self._close(shard)
        return True

    def _is_done(self, job: Job) -> bool:
        """Whether a job needs no doing, by whomever it was done."""
        settings, tier = self._shared.settings, self._shared.encoder.tier
        if read_part(job, settings, tier) is None and not is_finished(job.shard, settings):
            return False
        self._unfinished[job.shard].pop(job, None)
        return True

    def _close(self, shard: Shard) -> bool:
        """Join a shard whose jobs are all finished; whether nothing is left to do for it."""
        if shard not in self._unfinished:
            return False
        jobs, failed = self._shared.plan[shard], self._shared.failed[self._shard_ids[shard]]
        if not failed and not is_finished(shard, self._shared.settings):
            if any(not self._is_done(job) for job in list(self._unfinished[shard])):
                return False
            with self._claims.claimed(shard.parts_folder / "join.claim") as is_claimed:
                if not is_claimed or not self._join(shard, jobs):
                    return False
        self._unfinished.pop(shard)
        return True

    def _join(self, shard: Shard, jobs: tuple[Job, ...]) -> bool:
        """Join what is there; False where another process just did."""
        counts = finished_counts(jobs, self._shared.settings, self._shared.encoder.tier)
        if counts is None:
            self._unfinished[shard] = dict.fromkeys(jobs)
            return False
        try:
            if counts.rejects > self._shared.max_rejects:
                write_rejects(jobs, counts)
            else:
                join_parts(jobs, counts, self._shared.settings)
        except FileNotFoundError:
            # Silent for a lease, this or another process was taken for dead: it has finished.
            if not is_finished(shard, self._shared.settings):
                raise
        return True


def finished_counts(jobs: Iterable[Job], settings: Settings, tier: Tier) -> Counts | None:
    """What the parts of jobs hold together. None: not all of them are finished."""
    total = Counts()
    for job in jobs:
        counts = read_part(job, settings, tier)
        if counts is None:
            return None
        total += counts
    return total


_worker: _Worker | None = None


def _start_worker(shared: _Shared) -> None:
    global _worker
    _worker = _Worker(shared)
    # One process per core is enough: the tokenizers library would start threads in each.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    # A worker whose parent was killed would go on for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work() -> list[str]:
    assert _worker is not None
    return _worker.work()


def run_jobs(plan: Plan, encoder: Encoder, settings: Settings, config: TokenizeConfig) -> list[str]:
    """Do the jobs of a plan in processes of their own, with a progress bar, and join the shards.

    Returns:
        Why inputs cannot be read.

    Raises:
        FastTierError: The fast tokenizer tier failed; what it gave before can be wrong as well.
        InputError: A process was killed.
    """
    context = multiprocessing.get_context("spawn")
    shared = _Shared(
        *(plan, encoder, settings, config.max_rejects, context.Event()),
        totals=context.Array(c_longlong, 3),
        failed=context.Array("b", len(plan), lock=False),
    )
    num_jobs = sum(map(len, plan.values()))
    num_workers = config.num_workers(num_jobs)
    pool = ProcessPoolExecutor(num_workers, context, initializer=_start_worker, initargs=(shared,))
    unfinished_bytes = sum(
        job.num_bytes
        for jobs in plan.values()
        for job in jobs
        if read_part(job, settings, encoder.tier) is None
    )
    with pool, progress_bar(unfinished_bytes) as show:
        try:
            with _interrupt_blocked():
                futures = [pool.submit(_work) for _ in range(num_workers)]
            while wait(futures, timeout=_POLL_SECONDS).not_done:
                show(*shared.read_totals())
        except BaseException:
            shared.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        show(*shared.read_totals())
    return _errors(futures)


@contextmanager
def _interrupt_blocked() -> Generator[None]:
    """Keep Ctrl-C from the processes started inside, from their first moment on.

    A terminal sends it to all of them. The parent alone answers it, through ``stopped``.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _errors(futures: Iterable[Future[list[str]]]) -> list[str]:
    try:
        return sorted(error for future in futures for error in future.result())
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, perhaps for want of memory. What was finished is kept: "
            "run again, with fewer --workers."
        ) from error

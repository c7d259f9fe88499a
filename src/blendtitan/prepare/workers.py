"""Many files at once: one process works on one file at a time."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.plan import Job
from blendtitan.prepare.report import progress_bar
from blendtitan.prepare.tokenize_file import TokenizedFile, tokenize_file
from blendtitan.tokenizers import Tokenizer

_POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeConfig:
    """How text files become shards."""

    tokenizer: Path
    """A SentencePiece model, a ``tokenizer.json``, or a folder that holds one of them."""

    key: str = "text"
    """Field of each JSON line that holds the text."""

    max_rejects: int = 0
    """Bad lines allowed, in all files together."""

    workers: int | None = None
    """Processes. None: as many as this process may use cores."""

    def __post_init__(self) -> None:
        if self.max_rejects < 0:
            raise ConfigError(f"max_rejects is {self.max_rejects}, expected 0 or more")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers is {self.workers}, expected 1 or more")

    def num_workers(self, num_jobs: int) -> int:
        """Processes to start for ``num_jobs`` files."""
        # macOS cannot restrict a process to some cores, and so has no affinity to ask for.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return min(self.workers or cores or 1, num_jobs)


class _StoppedError(Exception):
    """The command was interrupted."""


@dataclass(frozen=True, slots=True)
class _Worker:
    """What a worker process holds for as long as it lives."""

    tokenizer: Tokenizer
    config: TokenizeConfig
    read_bytes: "Synchronized[int]"
    stopped: Event

    def advance(self, num_bytes: int) -> None:
        if self.stopped.is_set():
            raise _StoppedError
        with self.read_bytes.get_lock():
            self.read_bytes.value += num_bytes


_worker: _Worker | None = None


def _start_worker(worker: _Worker) -> None:
    global _worker
    _worker = worker
    # One process per core is enough: the tokenizers library would start threads in each.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    # A worker whose parent was killed would wait for its next job for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _tokenize_in_worker(job: Job) -> TokenizedFile:
    assert _worker is not None
    config = _worker.config
    return tokenize_file(
        job,
        _worker.tokenizer,
        key=config.key,
        max_rejects=config.max_rejects,
        advance=_worker.advance,
    )


def run_jobs(
    jobs: Sequence[Job], tokenizer: Tokenizer, config: TokenizeConfig
) -> tuple[list[TokenizedFile], list[str]]:
    """Turn files into shards, in processes of their own, with a progress bar.

    Returns:
        Results of the files that could be read, in the order of ``jobs``, and messages that say
        why the others could not.

    Raises:
        InputError: A process was killed.
    """
    context = multiprocessing.get_context("spawn")
    worker = _Worker(tokenizer, config, context.Value("q", 0), context.Event())
    sizes = {job: job.input_path.stat().st_size for job in jobs}
    pool = ProcessPoolExecutor(
        config.num_workers(len(jobs)), context, initializer=_start_worker, initargs=(worker,)
    )
    with pool, progress_bar(sum(sizes.values())) as show_bytes:
        try:
            # Largest first, so that no process is left alone with a large one at the end.
            order = sorted(jobs, key=sizes.__getitem__, reverse=True)
            with _interrupt_blocked():
                futures = {job: pool.submit(_tokenize_in_worker, job) for job in order}
            while wait(futures.values(), timeout=_POLL_SECONDS).not_done:
                # Without the lock, which a worker may hold when it is killed.
                show_bytes(worker.read_bytes.get_obj().value)
        except BaseException:
            worker.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        show_bytes(sum(sizes.values()))
    return _outcomes(futures[job] for job in jobs)


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Keep Ctrl-C from the processes started inside, from their first moment on.

    A terminal sends it to all of them. The parent alone answers it, through ``stopped``.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _outcomes(
    futures: Iterable[Future[TokenizedFile]],
) -> tuple[list[TokenizedFile], list[str]]:
    results: list[TokenizedFile] = []
    errors: list[str] = []
    for future in futures:
        try:
            results.append(future.result())
        except InputError as error:
            errors.append(str(error))
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process was killed, perhaps for want of memory. The shards that exist "
                "are complete. Run again, with fewer --workers."
            ) from error
    return results, errors

"""Processes that ``mpiexec`` started: the first one commands, the others work."""

from collections.abc import Generator
from concurrent.futures import Executor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from blendtitan.errors import ConfigError
from blendtitan.prepare.report import finished_totals, progress_bar
from blendtitan.prepare.workers import Work, do_work

_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class MpiEngine:
    """The other processes of MPI's world."""

    executor: Executor
    workers: int

    def num_workers(self, num_jobs: int) -> int:
        """Processes that share ``num_jobs`` jobs."""
        return max(1, min(self.workers, num_jobs))

    def run(self, work: Work) -> list[str]:
        """Do a plan: see ``Engine.run``."""
        count = self.num_workers(work.num_jobs)
        futures = [self.executor.submit(do_work, work, n, count) for n in range(count)]
        with progress_bar(work) as show:
            totals = finished_totals(work)
            while wait(futures, timeout=_POLL_SECONDS).not_done:
                if show:
                    show(*next(totals))
        return sorted({error for future in futures for error in future.result()})


@contextmanager
def mpi_engine(workers: int | None) -> Generator[MpiEngine | None]:
    """The engine in the first process of MPI's world; None in the others, when it is done.

    Raises:
        ConfigError: mpi4py is not installed, or MPI started no process to work.
    """
    try:
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"the engine 'mpi' needs the library mpi4py and an MPI library ({error}). Install the "
            f"first as the extra `mpi`, with `pip install blendtitan[mpi]`."
        ) from error
    num_others = MPI.COMM_WORLD.Get_size() - 1
    if num_others == 0:
        raise ConfigError(
            "the engine 'mpi' was started as one process, expected one that commands and at least "
            "one that works: mpiexec -n 3 blendtitan tokenize ..."
        )
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
        if executor is None:
            yield None
        else:
            # Only in type is it less than the standard library's.
            yield MpiEngine(cast(Executor, executor), min(workers or num_others, num_others))

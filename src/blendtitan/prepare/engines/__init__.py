"""Where the processes run that share a plan. Engines hand it out; no text travels through them."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, Protocol

from blendtitan.config import check_at_least
from blendtitan.prepare.engines.local import LocalEngine
from blendtitan.prepare.workers import Work

EngineName = Literal["local", "ray", "mpi"]


class Engine(Protocol):
    """Starts processes, each of which calls ``do_work``, and waits for them."""

    def num_workers(self, num_jobs: int) -> int:
        """Processes that share ``num_jobs`` jobs."""
        ...

    def run(self, work: Work) -> list[str]:
        """Do a plan.

        Returns:
            Why inputs cannot be read.

        Raises:
            FastTierError: The fast tokenizer tier failed; what it gave before can be wrong too.
            InputError: A process was killed, more often than the engine starts it again.
        """
        ...


@contextmanager
def started_engine(name: EngineName, *, workers: int | None) -> Generator[Engine | None]:
    """An engine; None in processes that only serve another one's, once they have done so.

    Args:
        name: ``local`` for processes of this machine; ``ray`` for a Ray cluster, or Ray on this
            machine; ``mpi`` for the processes that ``mpiexec`` started.
        workers: Processes. None: one for each core that may be used.

    Raises:
        ConfigError: The library that it takes is not installed, or cannot be used.
    """
    if workers is not None:
        check_at_least("workers", workers, 1)
    match name:
        case "local":
            yield LocalEngine(workers)
        case "ray":
            from blendtitan.prepare.engines.on_ray import ray_engine

            with ray_engine(workers) as engine:
                yield engine
        case "mpi":
            from blendtitan.prepare.engines.on_mpi import mpi_engine

            with mpi_engine(workers) as engine:
                yield engine

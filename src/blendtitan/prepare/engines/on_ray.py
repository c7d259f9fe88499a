"""Tasks of a Ray cluster. Ray starts one again whose process or machine was lost."""

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.report import finished_totals, progress_bar
from blendtitan.prepare.workers import Work, do_work

MAX_RETRIES = 3
"""How often Ray starts a task again whose process was lost."""

_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RayEngine:
    """One Ray task for each worker, of one core each."""

    workers: int

    def num_workers(self, num_jobs: int) -> int:
        """Processes that share ``num_jobs`` jobs."""
        return max(1, min(self.workers, num_jobs))

    def run(self, work: Work) -> list[str]:
        """Do a plan: see ``Engine.run``."""
        import ray
        from ray.exceptions import RayTaskError, WorkerCrashedError

        num_workers = self.num_workers(work.num_jobs)
        task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(do_work)
        shared = ray.put(work)
        waiting = results = [task.remote(shared, n, num_workers) for n in range(num_workers)]
        try:
            with progress_bar(work) as show:
                totals = finished_totals(work)
                while waiting:
                    _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_POLL_SECONDS)
                    if show:
                        show(*next(totals))
            return sorted({error for errors in ray.get(results) for error in errors})
        except RayTaskError as error:
            raise error.cause from error
        except WorkerCrashedError as error:
            raise InputError(
                f"a Ray worker was lost {MAX_RETRIES + 1} times, perhaps for want of memory. What "
                f"was finished is kept: run again, with fewer --workers."
            ) from error
        finally:
            for result in waiting:
                ray.cancel(result, force=True)


@contextmanager
def ray_engine(workers: int | None) -> Generator[RayEngine]:
    """The Ray that this process is connected to, or that RAY_ADDRESS names, or one of its own.

    Raises:
        ConfigError: Ray is not installed, or cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "the engine 'ray' needs the library ray. Install it as the extra `ray`, with "
            "`pip install blendtitan[ray]`."
        ) from error
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

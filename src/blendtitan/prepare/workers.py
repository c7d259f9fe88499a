"""The work of each process of a plan: take the next free job until all are finished.

All processes of a command, and of other ranks on other machines, see the same plan. Finished work
is visible in the work folder, and work in progress in its claims. So processes may come and go.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blendtitan.errors import ConfigError, FastTierError, InputError
from blendtitan.identity import TokenizerIdentity
from blendtitan.prepare.claims import Claims
from blendtitan.prepare.documents import (
    RejectLimit,
    Settings,
    Signals,
    TooManyRejectsError,
    finished_counts,
    read_part,
    remove_damaged_part,
    write_part,
)
from blendtitan.prepare.existing import check_replaceable
from blendtitan.prepare.plan import Job, Plan, Shard
from blendtitan.prepare.records import finished_record, join_parts, write_rejects
from blendtitan.prepare.runs import was_removed
from blendtitan.storage.atomic_files import read_note, write_atomically, writing
from blendtitan.tokenizers import Encoder, Tier

_POLL_SECONDS = 0.2

# Rank and number of ranks, by launcher. PALS, the launcher of HPE Cray under PBS, sets those of
# PMI, as MPICH and Intel MPI do. Slurm's come last: an mpiexec inside a Slurm job inherits them.
_RANK_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)


@dataclass(frozen=True, slots=True)
class Rank:
    """One of ``world_size`` processes that share a plan."""

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(
                f"the rank is {self.rank} and the world size {self.world_size}, expected a rank "
                f"from 0 to the world size minus 1"
            )


def rank_of_process(
    rank: int | None, world_size: int | None, environment: Mapping[str, str]
) -> Rank:
    """The given rank, or the rank from Slurm, PBS or MPI, or the only one."""
    if (rank is None) != (world_size is None):
        raise ConfigError("--rank and --world-size must be given together")
    if rank is not None and world_size is not None:
        return Rank(rank, world_size)
    for rank_name, size_name in _RANK_VARIABLES:
        if rank_name in environment and size_name in environment:
            try:
                return Rank(int(environment[rank_name]), int(environment[size_name]))
            except (ValueError, ConfigError) as error:
                raise ConfigError(
                    f"{rank_name} is {environment[rank_name]!r} and {size_name} "
                    f"{environment[size_name]!r}, expected a rank and a number of ranks. Give "
                    f"--rank and --world-size."
                ) from error
    return Rank()


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A plan and everything needed to do it. A pickled copy reads the tokenizer again."""

    plan: Plan
    encoder: Encoder
    settings: Settings

    tokenizer: TokenizerIdentity
    max_rejects: int
    rank: Rank

    tier: Tier
    """The requested tier. ``reference`` keeps no output of the fast tier."""

    doubt_path: Path
    """File that exists, with the reason, once any rank finds the fast tier wrong."""

    overwrite: bool = False
    run_path: Path | None = None
    """The command's file among those of the output. None: no other command can run."""

    @property
    def stop_path(self) -> Path:
        """File that exists, with the reason, once any rank has rejected too many texts."""
        return self.doubt_path.with_name("too-many-rejects")

    @property
    def num_jobs(self) -> int:
        """Jobs of all shards."""
        return sum(map(len, self.plan.values()))


def do_work(
    work: Work, worker: int, num_workers: int, *, signals: Signals | None = None
) -> list[str]:
    """Take free jobs until all are finished; return an error for each unreadable input.

    This is process ``worker`` of the ``num_workers`` of its rank. ``signals`` connects it to a
    waiting process, if any.

    Raises:
        FastTierError: The fast tokenizer tier failed, so its earlier ids may be wrong as well.
    """
    # One process per core is enough: the tokenizers library would start threads in each.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    place = (work.rank.rank + worker / num_workers) / work.rank.world_size
    return _Worker(work, signals or Signals()).run(jobs_from(work.plan, place))


def jobs_from(plan: Plan, place: float) -> list[Job]:
    """All jobs, in the order in which a process tries them.

    Large jobs come first, so that none is left for the end. Among jobs of similar size, each
    process starts at its own ``place``, from 0 to below 1 of the plan, so that they rarely
    collide.
    """
    jobs = [job for jobs in plan.values() for job in jobs]
    first = int(place * len(jobs))
    return sorted(
        [*jobs[first:], *jobs[:first]], key=lambda job: job.num_bytes.bit_length(), reverse=True
    )


class _Worker:
    """One process: does jobs and joins their shards until nothing is left."""

    def __init__(self, work: Work, signals: Signals) -> None:
        self._work = work
        self._signals = signals
        self._claims = Claims(renewed=[work.run_path] if work.run_path else [])
        # Jobs not known to be finished.
        self._unfinished = {shard: dict.fromkeys(jobs) for shard, jobs in work.plan.items()}
        self._errors: list[str] = []
        self._rejects = 0

    def run(self, jobs: Sequence[Job]) -> list[str]:
        try:
            while self._unfinished and not self._signals.is_stopped():
                # No generators: every job and every shard is tried.
                worked = [self._work_on(job) for job in jobs]
                worked += [self._close(shard) for shard in list(self._unfinished)]
                if self._unfinished and not any(worked):
                    # Others have claimed the rest, and may be killed.
                    time.sleep(_POLL_SECONDS)
        except TooManyRejectsError as error:
            # Empty if another process is writing the reason, and reports it itself.
            self._errors += filter(None, [str(error)])
        finally:
            self._claims.close()
        return self._errors

    def _work_on(self, job: Job) -> bool:
        """Do a job if it is free; return whether it was."""
        if job not in self._unfinished.get(job.shard, ()) or self._is_done(job):
            return False
        with self._claims.claimed(job.path("claim")) as is_claimed:
            if not is_claimed:
                self._renew_folder(job.shard)
                return False
            # Another process may have finished it just before it returned its claim.
            if self._is_done(job) or job.shard.failure_path.exists() or not self._write_part(job):
                return False
        self._unfinished[job.shard].pop(job)
        self._close(job.shard)
        return True

    def _renew_folder(self, shard: Shard) -> None:
        """Recreate a missing folder for parts, which holds the claims."""
        if not shard.parts_folder.exists() and not self._is_finished(shard):
            with writing(shard.parts_folder):
                shard.parts_folder.mkdir(parents=True, exist_ok=True)

    def _write_part(self, job: Job) -> bool:
        """Do a job; False if the folder for parts was removed meanwhile."""
        self._check_may_write()
        work = self._work
        limit = RejectLimit(work.max_rejects - self._rejects, work.stop_path)
        try:
            counts = write_part(job, work.encoder, work.settings, self._signals, limit)
            self._rejects += counts.rejects
        except TooManyRejectsError as error:
            # The first process writes one message for all.
            with suppress(FileExistsError), work.stop_path.open("x") as file:
                file.write(str(error))
            raise TooManyRejectsError(*read_note(work.stop_path).splitlines()) from error
        except InputError as error:
            # Spare other processes from reading the file up to the same error.
            write_atomically(job.shard.failure_path, str(error).encode())
        except FastTierError as error:
            write_atomically(self._work.doubt_path, str(error).encode())
            raise
        except FileNotFoundError:
            if job.shard.parts_folder.exists():
                raise
            return False
        return True

    def _check_may_write(self) -> None:
        """Check that no rank found the fast tier wrong, and no command took this one over."""
        work = self._work
        if work.tier != "reference" and work.doubt_path.exists():
            raise FastTierError(read_note(work.doubt_path))
        if work.run_path is not None and not work.run_path.exists():
            raise ConfigError(was_removed(work.run_path))

    def _is_done(self, job: Job) -> bool:
        """Whether any process has finished a job."""
        work = self._work
        if read_part(job, work.settings, work.tier) is None:
            if not self._is_finished(job.shard):
                return False
            # Its parts were removed together.
            self._unfinished[job.shard].clear()
        self._unfinished[job.shard].pop(job, None)
        return True

    def _is_finished(self, shard: Shard) -> bool:
        return finished_record(shard, self._work.settings, self._work.tier) is not None

    def _close(self, shard: Shard) -> bool:
        """Join a shard if all its jobs are finished; return whether it is done."""
        if shard not in self._unfinished:
            return False
        if shard.failure_path.exists():
            self._errors.append(read_note(shard.failure_path))
        elif not self._is_finished(shard):
            if any(not self._is_done(job) for job in list(self._unfinished[shard])):
                return False
            with self._claims.claimed(shard.parts_folder / "join.claim") as is_claimed:
                if not is_claimed or not self._join(shard):
                    return False
        self._unfinished.pop(shard)
        return True

    def _join(self, shard: Shard) -> bool:
        """Join the parts; False if some are missing, because another process just did."""
        work, jobs = self._work, self._work.plan[shard]
        self._check_may_write()
        try:
            if not work.overwrite:
                check_replaceable(shard, work.settings, work.encoder.path)
            counts = finished_counts(jobs, work.settings, work.tier)
            if counts is None:
                raise FileNotFoundError(shard.parts_folder)
            if counts.rejects > work.max_rejects:
                write_rejects(jobs, counts)
            else:
                join_parts(jobs, counts, work.settings, work.tokenizer)
        except ConfigError as error:
            # Another program has written a file of this name since the command began.
            self._errors += str(error).splitlines()
        except FileNotFoundError:
            # A process that was silent for a lease is still working, so two processes joined the
            # shard, and one was faster. Check again.
            for job in jobs:
                remove_damaged_part(job)
            self._unfinished[shard] = dict.fromkeys(jobs)
            return False
        return True

"""What each of the processes does that share a plan: the next job that is free, until all is done.

All processes of a command, and of other ranks on other machines, see the same plan. What is done
is seen in the work folder, what is being done in its claims. So processes may come and go.
"""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from blendtitan.errors import ConfigError, FastTierError, InputError
from blendtitan.identity import TokenizerIdentity
from blendtitan.prepare.claims import Claims
from blendtitan.prepare.documents import Counts, Settings
from blendtitan.prepare.join import finished_record, join_parts, write_rejects
from blendtitan.prepare.ownership import check_replaceable
from blendtitan.prepare.parts import (
    Progress,
    RejectLimit,
    TooManyRejectsError,
    read_part,
    remove_damaged_part,
    write_part,
)
from blendtitan.prepare.plan import Job, Plan, Shard
from blendtitan.prepare.ranks import Rank
from blendtitan.prepare.runs import was_removed
from blendtitan.storage.atomic_files import read_note, write_atomically, writing
from blendtitan.tokenizers import Encoder, Tier

_POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A plan, and what doing it takes. Pickled, it reads the tokenizer again."""

    plan: Plan
    encoder: Encoder
    settings: Settings

    tokenizer: TokenizerIdentity
    """Recorded beside every shard."""

    max_rejects: int
    rank: Rank

    tier: Tier
    """What was asked for. ``reference`` keeps nothing of what the fast tier made."""

    doubt_path: Path
    """File that is there once the fast tier was found wrong, with the reason, for all ranks."""

    overwrite: bool = False
    """Whether shards that others made may be replaced."""

    run_path: Path | None = None
    """File of the command among those at work on the output. None: there are no others."""

    @property
    def stop_path(self) -> Path:
        """File that is there once too many texts were left out, with the reason, for all ranks."""
        return self.doubt_path.with_name("too-many-rejects")

    @property
    def num_jobs(self) -> int:
        """Jobs of all shards."""
        return sum(map(len, self.plan.values()))


class Signals(Progress, Protocol):
    """What a process tells those who started it, and hears from them."""

    def is_stopped(self) -> bool:
        """Whether the command was interrupted."""
        ...


class _Unheard:
    def is_stopped(self) -> bool:
        return False

    def add_bytes(self, num_bytes: int) -> None:
        pass

    def add_documents(self, num_documents: int, num_tokens: int) -> None:
        pass


def do_work(
    work: Work, worker: int, num_workers: int, *, signals: Signals | None = None
) -> list[str]:
    """Do what is free until everything is finished; returns why inputs cannot be read.

    Args:
        work: What to do.
        worker: Which of the rank's processes this is.
        num_workers: How many it has.
        signals: To and from those who wait for it. None: nobody listens, and to stop the
            process is to kill it.

    Raises:
        FastTierError: The fast tokenizer tier failed; what it gave before can be wrong as well.
    """
    # One process per core is enough: the tokenizers library would start threads in each.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    place = (work.rank.rank + worker / num_workers) / work.rank.world_size
    return _Worker(work, signals or _Unheard()).run(jobs_from(work.plan, place))


def jobs_from(plan: Plan, place: float) -> list[Job]:
    """All jobs, in the order in which a process looks at them.

    Large ones first, so that no process is left alone with one at the end. Among those of about
    one size, each process begins at a place of its own: they rarely ask for the same.

    Args:
        plan: Jobs of all shards.
        place: From 0 to below 1: how far into the plan this process begins.
    """
    jobs = [job for jobs in plan.values() for job in jobs]
    first = int(place * len(jobs))
    return sorted(
        [*jobs[first:], *jobs[:first]], key=lambda job: job.num_bytes.bit_length(), reverse=True
    )


def finished_counts(jobs: Iterable[Job], settings: Settings, tier: Tier) -> Counts | None:
    """What the parts of jobs hold together. None: not all of them are finished."""
    total = Counts()
    for job in jobs:
        counts = read_part(job, settings, tier)
        if counts is None:
            return None
        total += counts
    return total


class _Worker:
    """One process: does jobs, and joins their shards, until nothing is left to do."""

    def __init__(self, work: Work, signals: Signals) -> None:
        self._work = work
        self._signals = signals
        self._claims = Claims(renewed=[work.run_path] if work.run_path else [])
        # Jobs that are not known to be finished yet.
        self._unfinished = {shard: dict.fromkeys(jobs) for shard, jobs in work.plan.items()}
        self._errors: list[str] = []
        self._rejects = 0

    def run(self, jobs: Sequence[Job]) -> list[str]:
        try:
            self._do(jobs)
        except TooManyRejectsError as error:
            # Empty where another process is just writing why, and reports it itself.
            self._errors.append(str(error))
        finally:
            self._claims.close()
        return self._errors

    def _do(self, jobs: Sequence[Job]) -> None:
        while self._unfinished and not self._signals.is_stopped():
            worked = False
            for job in jobs:
                worked |= self._work_on(job)
            for shard in list(self._unfinished):
                worked |= self._close(shard)
            if self._unfinished and not worked:
                # The rest is claimed by others, of which one may be killed.
                time.sleep(_POLL_SECONDS)

    def _work_on(self, job: Job) -> bool:
        """Do a job that is free; whether it was."""
        if job not in self._unfinished.get(job.shard, ()) or self._is_done(job):
            return False
        with self._claims.claimed(job.path("claim")) as is_claimed:
            # Another process may have finished it just before its claim was given back.
            if not is_claimed:
                self._renew_folder(job.shard)
                return False
            if self._is_done(job) or job.shard.failure_path.exists() or not self._write_part(job):
                return False
        self._unfinished[job.shard].pop(job)
        self._close(job.shard)
        return True

    def _renew_folder(self, shard: Shard) -> None:
        """Make the folder for parts again where it is gone and the shard is not finished.

        In a folder that is gone nobody can claim anything, and so all would wait for ever.
        """
        if not shard.parts_folder.exists() and not self._is_finished(shard):
            with writing(shard.parts_folder):
                shard.parts_folder.mkdir(parents=True, exist_ok=True)

    def _write_part(self, job: Job) -> bool:
        """Do a job; False where the folder for parts was removed meanwhile."""
        self._check_trusted()
        self._check_registered()
        work = self._work
        limit = RejectLimit(work.max_rejects - self._rejects, work.stop_path)
        try:
            counts = write_part(job, work.encoder, work.settings, self._signals, limit)
            self._rejects += counts.rejects
        except TooManyRejectsError as error:
            # One message is enough: the first process tells it for all.
            with suppress(FileExistsError), work.stop_path.open("x") as file:
                file.write(
                    f"{error}; stopped, because more than {work.max_rejects:,} texts are left out "
                    f"(--max-rejects)"
                )
            raise TooManyRejectsError(*read_note(work.stop_path).splitlines()) from error
        except InputError as error:
            # The others need not find out for themselves.
            write_atomically(job.shard.failure_path, str(error).encode())
        except FastTierError as error:
            write_atomically(self._work.doubt_path, str(error).encode())
            raise
        except FileNotFoundError:
            if job.shard.parts_folder.exists():
                raise
            return False
        return True

    def _check_registered(self) -> None:
        """Check that no other command took this one for dead."""
        path = self._work.run_path
        if path is not None and not path.exists():
            raise ConfigError(was_removed(path))

    def _check_trusted(self) -> None:
        """Check that no process of any rank has found the fast tier wrong."""
        if self._work.encoder.tier == "fast" and self._work.doubt_path.exists():
            raise FastTierError(read_note(self._work.doubt_path))

    def _is_done(self, job: Job) -> bool:
        """Whether a job needs no doing, by whomever it was done."""
        work = self._work
        if read_part(job, work.settings, work.tier) is None:
            if not self._is_finished(job.shard):
                return False
            # Its parts are gone, all at once.
            self._unfinished[job.shard].clear()
        self._unfinished[job.shard].pop(job, None)
        return True

    def _is_finished(self, shard: Shard) -> bool:
        return finished_record(shard, self._work.settings, self._work.tier) is not None

    def _close(self, shard: Shard) -> bool:
        """Join a shard whose jobs are all finished; whether nothing is left to do for it."""
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
        """Join what is there; False where that is not all, as when another process just did."""
        work, jobs = self._work, self._work.plan[shard]
        self._check_trusted()
        self._check_registered()
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
            # Since this command began, another program has put something of this name there.
            self._errors += str(error).splitlines()
        except FileNotFoundError:
            # Silent for a lease, this or another process was taken for dead: both went on, and
            # one was faster. What is left is looked at again.
            for job in jobs:
                remove_damaged_part(job)
            self._unfinished[shard] = dict.fromkeys(jobs)
            return False
        return True

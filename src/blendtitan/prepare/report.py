"""What the preparing commands show: a progress bar, where there is a terminal, and tables."""

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from blendtitan.prepare.documents import Counts
from blendtitan.prepare.join import finished_record
from blendtitan.prepare.parts import read_part
from blendtitan.prepare.plan import Shard
from blendtitan.prepare.removed import RemovedInput
from blendtitan.prepare.workers import Work
from blendtitan.storage.list_forms import corpus_in_folder
from blendtitan.tables import Table, number_table, tokenizing_progress


@contextmanager
def progress_bar(work: Work) -> Generator[Callable[[int, int, int], None] | None]:
    """A bar of what was read and made, on a terminal.

    Yields a function to be called with the bytes read, documents and tokens made so far; None
    where stderr is not a terminal.
    """
    progress = tokenizing_progress()
    if progress is None:
        yield None
        return
    with progress:
        planned_bytes = sum(job.num_bytes for jobs in work.plan.values() for job in jobs)
        total = planned_bytes - _finished(work)[0]
        task = progress.add_task("", total=total, documents=0, tokens=0)
        yield lambda num_bytes, documents, tokens: progress.update(
            task, completed=num_bytes, documents=documents, tokens=tokens
        )


def finished_totals(work: Work) -> Iterator[tuple[int, int, int]]:
    """Bytes, documents and tokens of the jobs that were finished since the first call.

    Read from the work folder, which all machines share, anew for each call.
    """
    before = _finished(work)
    while True:
        now = _finished(work)
        yield now[0] - before[0], now[1] - before[1], now[2] - before[2]


def _finished(work: Work) -> tuple[int, int, int]:
    num_bytes, total = 0, Counts()
    for shard, jobs in work.plan.items():
        record = finished_record(shard, work.settings, work.tier)
        if record is not None:
            num_bytes += sum(job.num_bytes for job in jobs)
            total += record.counts
            continue
        for job in jobs:
            counts = read_part(job, work.settings, work.tier)
            if counts is not None:
                num_bytes += job.num_bytes
                total += counts
    return num_bytes, total.documents, total.tokens


def tokenize_table(
    counts: Mapping[Shard, Counts], output: Path, removed: Iterable[RemovedInput] = ()
) -> Table:
    """Shards, documents, tokens and rejects of each corpus below ``output``, and their sums.

    Shards that are left of removed inputs are rows of their own: they are in the catalog, too.
    """
    num_shards: Counter[str] = Counter()
    sums: defaultdict[str, Counts] = defaultdict(Counts)
    for shard, found in counts.items():
        corpus = corpus_in_folder(shard.prefix, output.absolute())
        num_shards[corpus] += found.documents > 0
        sums[corpus] += found
    for left in removed:
        corpus = f"{corpus_in_folder(left.prefix, output.absolute())} (input removed)"
        num_shards[corpus] += left.counts.documents > 0
        sums[corpus] += left.counts
    table = number_table("corpus", "shards", "documents", "tokens", "rejects")
    for corpus, found in sorted(sums.items()):
        table.add_row(corpus, f"{num_shards[corpus]:,}", *_shown(found))
    total = sum(sums.values(), Counts())
    table.add_section()
    table.add_row("total", f"{num_shards.total():,}", *_shown(total))
    return table


def _shown(found: Counts) -> tuple[str, str, str]:
    return f"{found.documents:,}", f"{found.tokens:,}", f"{found.rejects:,}"

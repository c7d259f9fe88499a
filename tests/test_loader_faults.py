"""Faults while a loader reads: the training thread hears of them, and nothing is skipped."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from blendtitan import BlendedDataset, DataLoader, build_datasets
from blendtitan.errors import BlendTitanError, CorruptShardError, MissingShardError, ShardError
from tests.conftest import WriteBlend, WriteShard
from tests.failing_reads import Disk
from tests.test_loader import rows, samples

CORPORA = {"web": (0.6, [700, 500]), "code": (0.4, [350])}
BATCHES = 60

with_and_without_threads = pytest.mark.parametrize("num_workers", [0, 3])

Rows = list[tuple[int, ...]]


@pytest.fixture
def dataset(write_blend: WriteBlend) -> BlendedDataset:
    """Each read opens its file, unless it is that of the read before."""
    return train_split(write_blend, max_open_shards=1)


def train_split(write_blend: WriteBlend, **settings: object) -> BlendedDataset:
    dataset = build_datasets(write_blend(CORPORA, seq_length=8, **settings)).train
    assert dataset is not None
    return dataset


def expected(dataset: BlendedDataset) -> Rows:
    return samples(dataset, range(4 * BATCHES))


def read_through(
    loader: DataLoader,
    *,
    fault: Callable[[], object],
    mend: Callable[[], object],
    error: type[BaseException],
) -> tuple[Rows, list[BaseException]]:
    """What one iterator gives: the fault comes after a third, and is mended once it is heard of."""
    seen: Rows = []
    errors: list[BaseException] = []
    stream = iter(loader)
    while len(seen) < 4 * BATCHES:
        if len(seen) == 4 * (BATCHES // 3) and not errors:
            fault()
        try:
            seen += rows(next(stream))
        except error as found:
            errors.append(found)
            mend()
    return seen, errors


@with_and_without_threads
def test_reads_that_fail_for_a_moment_change_nothing(
    dataset: BlendedDataset, disk: Disk, num_workers: int
) -> None:
    right = expected(dataset)
    loader = DataLoader(dataset, 4, num_workers=num_workers)
    passing = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN]
    seen, errors = read_through(
        loader, fault=lambda: disk.errors.extend(passing), mend=lambda: None, error=BlendTitanError
    )

    assert seen == right
    assert errors == []
    assert disk.retries == 4


@with_and_without_threads
def test_a_disk_that_stays_away_is_an_error_with_shard_and_offset(
    dataset: BlendedDataset, disk: Disk, num_workers: int
) -> None:
    """When it is back, the same iterator continues."""
    right = expected(dataset)

    def set_error(number: int | None) -> None:
        disk.staying = number

    disk.ending = "web_0.bin"
    seen, errors = read_through(
        DataLoader(dataset, 4, num_workers=num_workers),
        fault=lambda: set_error(errno.EIO),
        mend=lambda: set_error(None),
        error=MissingShardError,
    )

    assert seen == right
    assert "web_0.bin: cannot be read at byte" in str(errors[0])
    assert "even after 9 retries" in str(errors[0])
    assert "corpus 'web', shard " in errors[0].__notes__[0]
    assert "web/web_0, from token " in errors[0].__notes__[0]


@with_and_without_threads
def test_short_and_slow_reads_change_nothing(
    write_blend: WriteBlend, disk: Disk, num_workers: int
) -> None:
    """Also where documents get EODs inserted, from an ``.idx`` that is read in parts."""
    dataset = train_split(write_blend, eod_token_id=9)
    right = samples(dataset, range(16))
    disk.most_bytes, disk.seconds = 7, 0.0002
    loader = DataLoader(dataset, 4, num_workers=num_workers)
    seen = [row for batch in islice(loader, 4) for row in rows(batch)]

    assert seen == right


class Shard:
    """The files of a shard, and what may happen to them."""

    def __init__(self, bin_path: Path) -> None:
        self.path = bin_path
        self.whole = bin_path.with_suffix(".whole")
        shutil.copy(bin_path, self.whole)

    def truncate(self) -> None:
        """Cut the file short, in place."""
        os.truncate(self.path, 10)

    def write_back(self) -> None:
        """Into the same file."""
        self.path.write_bytes(self.whole.read_bytes())

    def remove(self) -> None:
        """Take its name away."""
        self.path.unlink()

    def replace_by_another(self) -> None:
        """Give its name to another file, of another size."""
        other = self.path.with_suffix(".other")
        other.write_bytes(b"another")
        other.rename(self.path)

    def put_back(self) -> None:
        """As a new file under the old name."""
        shutil.copy(self.whole, self.path.with_suffix(".new"))
        self.path.with_suffix(".new").rename(self.path)


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
@pytest.mark.parametrize("max_open_shards", [1, 128])
@pytest.mark.parametrize(
    ("fault", "mend", "kind"),
    [
        ("truncate", "write_back", CorruptShardError),
        ("truncate", "put_back", CorruptShardError),
        ("remove", "put_back", MissingShardError),
        ("replace_by_another", "put_back", CorruptShardError),
    ],
)
@with_and_without_threads
def test_a_shard_truncated_removed_or_replaced_while_it_is_read(
    write_blend: WriteBlend,
    *,
    num_workers: int,
    fault: str,
    mend: str,
    kind: type[ShardError],
    max_open_shards: int,
    suffix: str,
) -> None:
    """The error reaches the training thread. Once its cause is fixed, the iterator continues.

    A file that is open stays what it was when its name goes to another, or to none: whoever has it
    open reads on from the old one. It is noticed when the file is opened the next time.
    """
    # Documents without this EOD get it inserted, which needs the .idx.
    eod_id = 9 if suffix == ".idx" else 2
    dataset = train_split(write_blend, eod_token_id=eod_id, max_open_shards=max_open_shards)
    right = expected(dataset)
    shard = Shard(Path(f"{dataset[0].shard}{suffix}"))
    seen, errors = read_through(
        DataLoader(dataset, 4, num_workers=num_workers),
        fault=getattr(shard, fault),
        mend=getattr(shard, mend),
        error=kind,
    )

    assert seen == right
    assert bool(errors) == (max_open_shards == 1 or fault == "truncate")
    if errors:
        assert shard.path.name in str(errors[0])
        assert "while reading slot" in errors[0].__notes__[0]


@pytest.mark.parametrize(
    "kind", [RuntimeError, MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit]
)
@with_and_without_threads
def test_whatever_ends_a_reading_thread_reaches_the_training_thread(
    dataset: BlendedDataset,
    monkeypatch: pytest.MonkeyPatch,
    *,
    num_workers: int,
    kind: type[BaseException],
) -> None:
    """It is neither swallowed nor waited for, and the iterator can be asked again."""
    right = expected(dataset)
    read = dataset.rows.read_contiguous
    dying: list[type[BaseException]] = []

    def read_or_die(*arguments: object) -> None:
        if dying:
            raise dying.pop()("not ours")
        read(*arguments)  # pyright: ignore

    monkeypatch.setattr(type(dataset.rows), "read_contiguous", lambda _, *args: read_or_die(*args))
    seen, errors = read_through(
        DataLoader(dataset, 4, num_workers=num_workers),
        fault=lambda: dying.append(kind),
        mend=lambda: None,
        error=kind,
    )

    assert seen == right
    assert [type(error) for error in errors] == [kind]


ENDINGS = {
    "at its end": ("pass", 0),
    "by an error": ("raise RuntimeError('the model failed')", 1),
    "by sys.exit": ("sys.exit(3)", 3),
    "by an error of the data": ("os.preadv = broken; [next(stream) for _ in range(9)]", 1),
}

PROGRAM = """
import os, sys, time
from blendtitan import BlendConfig, DataLoader, build_datasets

preadv = os.preadv

def slow(*arguments):
    time.sleep(0.05)
    return preadv(*arguments)

def broken(*arguments):
    raise ValueError("not ours")

config = BlendConfig(data_file_list=sys.argv[1], seq_length=8, eod_token_id=2, split="1")
train = build_datasets(config).train
for ending in sys.argv[2:]:  # forked, because importing PyTorch takes seconds
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    os.preadv = slow
    stream = iter(DataLoader(train, 2, num_workers=4, prefetch=4))
    next(stream)
    exec(ending)
    break
"""


@pytest.mark.slow
def test_a_process_ends_while_its_threads_read(write_shard: WriteShard, tmp_path: Path) -> None:
    """However it ends, and without waiting for more than the reads under way."""
    write_shard("web", [[5, 6, 7, 2]] * 50)
    (tmp_path / "list").write_text("1 web")
    lines = [line for line, _ in ENDINGS.values()]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "list"), *lines],
        capture_output=True,
        text=True,
        timeout=120,  # a guard against hanging, not a measure
    )

    assert done.stdout.split() == [str(code) for _, code in ENDINGS.values()], done.stderr
    assert "RuntimeError: the model failed" in done.stderr
    assert "ValueError: not ours" in done.stderr

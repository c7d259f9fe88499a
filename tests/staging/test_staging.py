"""Reading through a staging disk: the same tokens, in every state of the disk."""

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.stretches import shard_index
from blendtitan.errors import ConfigError, CorruptShardError, OutputError
from blendtitan.staging import run, stager
from blendtitan.staging.folder import StageFolder
from blendtitan.staging.run import Neighbour, Staging, begin, stage
from tests.conftest import WriteBlend, wait_until
from tests.object_store import ObjectStore

BLOCK_BYTES = 256
BLOCKS = 18
"""Of all shards: 1800, 1000 and 1400 bytes."""
STEP = 8


@pytest.fixture
def blend(write_blend: WriteBlend) -> BlendConfig:
    """Three shards; an epoch has 129 windows of 16 tokens."""
    corpora = {"web": (0.7, [900, 500]), "code": (0.3, [700])}
    return write_blend(corpora, seq_length=16, split="100", num_workers=0)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk"


@pytest.fixture(autouse=True)
def _ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look more often. No thread outlives its test."""
    monkeypatch.setattr(stager, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(run, "_NOTE_SECONDS", 0.1)
    begun: list[Staging] = []
    made = Staging.__post_init__

    def note(staging: Staging) -> None:
        begun.append(staging)
        made(staging)

    monkeypatch.setattr(Staging, "__post_init__", note)
    yield
    for each in begun:
        each.close()


def uploaded(store: ObjectStore, blend: BlendConfig) -> BlendConfig:
    path = Path(str(blend.data_file_list))
    return replace(blend, data_file_list=f"{store.upload(path.parent)}/{path.name}")


def loader_of(config: BlendConfig, **settings: Any) -> DataLoader:
    return DataLoader(build_datasets(config).train, STEP, **settings)


def staging(
    loader: DataLoader, disk: Path, *, num_bytes: int = 10_000, num_samples: int = 264
) -> Staging:
    return stage(loader, disk, num_bytes, num_samples=num_samples, block_bytes=BLOCK_BYTES)


def blocks_on(disk: Path) -> list[Path]:
    found = (Path(folder, name) for folder, _, names in os.walk(disk) for name in names)
    return sorted(path for path in found if path.name.isdecimal())


def has_staged(staged: Staging, num_bytes: int) -> None:
    wait_until(lambda: staged.counts.blocks >= num_bytes)


def read(loader: DataLoader, steps: int) -> np.ndarray:
    batches = iter(loader)
    return np.concatenate([next(batches).input_ids.numpy() for _ in range(steps)])


def test_tokens_are_those_of_the_files(blend: BlendConfig, disk: Path) -> None:
    """Also on a slow shared file system, whose shards are staged like those in a store."""
    loader = loader_of(blend)
    staged = staging(loader, disk)
    has_staged(staged, 4200)

    np.testing.assert_array_equal(read(loader, 32), read(loader_of(blend), 32))
    assert (staged.counts.blocks, staged.counts.direct) == (4200, 0)


def test_tokens_are_those_of_the_store(store: ObjectStore, blend: BlendConfig, disk: Path) -> None:
    """Every block is requested once. No window is requested that is on the disk."""
    there = uploaded(store, blend)
    loader = loader_of(there)
    store.requests.clear()
    staged = staging(loader, disk)
    has_staged(staged, 4200)

    np.testing.assert_array_equal(read(loader, 32), read(loader_of(blend), 32))
    requests = [each for each in store.requests if each.method == "GET"]
    assert len(requests) == len(set(requests)) == BLOCKS
    assert (staged.counts.blocks, staged.counts.direct) == (4200, 0)


def test_an_idx_is_not_looked_for_on_the_disk(blend: BlendConfig, disk: Path) -> None:
    """Only blocks of a ``.bin`` are staged. The bytes that are reported are those of windows."""
    loader = loader_of(blend)
    staged = staging(loader, disk)
    assert isinstance(loader.dataset, BlendedDataset)
    shard_index(loader.dataset.rows, 0).document_starts(0, 1)

    assert (staged.counts.read, staged.counts.direct) == (0, 0)


@pytest.mark.parametrize("num_bytes", [2 * BLOCK_BYTES, 1000, 3000])
def test_a_small_disk_is_never_used_beyond_its_share(
    blend: BlendConfig, disk: Path, num_bytes: int
) -> None:
    loader = loader_of(blend)
    staged = staging(loader, disk, num_bytes=num_bytes)
    wait_until(lambda: staged.counts.on_disk > num_bytes // 2 - BLOCK_BYTES)
    tokens = read(loader, 32)

    np.testing.assert_array_equal(tokens, read(loader_of(blend), 32))
    assert sum(path.stat().st_size for path in blocks_on(disk)) <= num_bytes
    assert staged.counts.fetched <= 1.15 * staged.counts.read


def test_blocks_in_order_are_dropped_once_they_are_read(blend: BlendConfig, disk: Path) -> None:
    """With room for three of them, all are staged, one after the other."""
    in_order = {"shuffle_sample_in_corpus": False, "blend_sample_in_corpus": False}
    config = replace(blend, **in_order)
    loader = loader_of(config, prefetch=0)
    staged = staging(loader, disk, num_bytes=4 * BLOCK_BYTES, num_samples=136)
    batches, tokens = iter(loader), []
    for _ in range(16):
        time.sleep(0.1)  # training
        tokens.append(next(batches).input_ids.numpy())
        assert len(blocks_on(disk)) <= 3

    np.testing.assert_array_equal(np.concatenate(tokens), read(loader_of(config), 16))
    assert staged.counts.blocks > 7 * BLOCK_BYTES


def test_windows_of_blocks_that_are_not_worth_it_are_staged_alone(
    store: ObjectStore, write_blend: WriteBlend, disk: Path
) -> None:
    """One of eight nodes that share an epoch fetches an eighth of it, ahead of reading."""
    blend = write_blend({"web": (1.0, [30_000])}, seq_length=16, split="100", num_workers=0)
    settings: dict[str, Any] = {"dp_rank": 3, "dp_world_size": 8, "prefetch": 0}
    loader = loader_of(uploaded(store, blend), **settings)
    store.requests.clear()
    staged = staging(loader, disk, num_bytes=40_000, num_samples=16 * 64)
    batches, tokens = iter(loader), []
    for _ in range(15):
        time.sleep(0.1)  # training
        tokens.append(next(batches).input_ids.numpy())
        names = [path.name for path in disk.glob("*/*/*-*")]
        assert sum(int(name.partition("-")[2]) for name in names if name[-1] != "w") <= 2500

    np.testing.assert_array_equal(np.concatenate(tokens), read(loader_of(blend, **settings), 15))
    counts = staged.counts
    assert (counts.read, counts.blocks) == (15 * STEP * 34, 0)
    assert counts.windows > counts.read // 2
    requests = [each for each in store.requests if each.method == "GET"]
    ahead = [each for each in requests if each.bytes and each.bytes[1] - each.bytes[0] <= 34]
    assert len(ahead) == len(set(ahead))


def test_a_block_is_staged_once_for_the_processes_of_a_node(blend: BlendConfig, disk: Path) -> None:
    """Each of them fetches its part, and reads those of the others."""
    disk.mkdir()
    loaders = [loader_of(blend, dp_rank=rank, dp_world_size=2) for rank in range(2)]
    folders = [StageFolder.claim(disk, process=rank) for rank in range(2)]
    node = [Neighbour(str(folder.path), rank) for rank, folder in enumerate(folders)]
    sizes = {"num_bytes": 10_000, "num_samples": 264, "block_bytes": BLOCK_BYTES}
    both = [
        begin(loader, folder, node, **sizes)
        for loader, folder in zip(loaders, folders, strict=True)
    ]
    has_staged(both[0], 4200)

    for rank, loader in enumerate(loaders):
        alone = loader_of(blend, dp_rank=rank, dp_world_size=2)
        np.testing.assert_array_equal(read(loader, 16), read(alone, 16))
    assert sum(each.stager.stage.counts.read for each in both) == 2 * 16 * STEP * 34
    assert (both[0].counts.blocks, both[0].counts.direct) == (4200, 0)
    assert len(blocks_on(disk)) == BLOCKS


def test_blocks_of_a_killed_run_are_taken_over(blend: BlendConfig, disk: Path) -> None:
    loader = loader_of(blend)
    killed = staging(loader, disk)
    has_staged(killed, 4200)
    read(loader, 4)
    partial = blocks_on(disk)[0].with_name("99.new")
    partial.write_bytes(b"half")
    killed.close()

    again = loader_of(blend)
    again.load_state_dict(loader.state_dict())
    staged = staging(again, disk)
    expected = read(loader_of(blend), 32)[4 * STEP :]
    np.testing.assert_array_equal(read(again, 28), expected)
    assert (staged.counts.blocks, staged.counts.direct) == (0, 0)
    assert not partial.exists()


def test_blocks_of_other_data_are_replaced(blend: BlendConfig, disk: Path) -> None:
    """A killed run left blocks of shards that have changed since: they are not read."""
    killed = staging(loader_of(blend), disk, num_bytes=4480)
    has_staged(killed, 4200)
    killed.close()
    for path in Path(str(blend.data_file_list)).parent.rglob("*.bin"):
        tokens = np.fromfile(path, "<u2")
        np.where(tokens == 2, 2, tokens + 1).astype("<u2").tofile(path)

    loader = loader_of(blend)
    staged = staging(loader, disk, num_bytes=4480)
    has_staged(staged, 4200)
    np.testing.assert_array_equal(read(loader, 32), read(loader_of(blend), 32))
    assert sum(path.stat().st_size for path in blocks_on(disk)) == 4200


def test_a_run_that_ends_leaves_nothing(
    blend: BlendConfig, disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    loader = loader_of(blend)
    has_staged(staging(loader, disk, num_samples=256), 4200)
    read(loader, 32)
    wait_until(lambda: list(disk.iterdir()) == [])

    assert "Staging on this node: 0.48 bytes fetched per byte read. Read: 0.0 MB." in caplog.text


def test_two_runs_share_a_disk(blend: BlendConfig, disk: Path) -> None:
    """Each has a folder of its own; the first to end takes only its own blocks away."""
    loaders = [loader_of(blend), loader_of(blend)]
    both = [staging(loaders[i], disk, num_samples=256 + i * STEP) for i in range(2)]
    for each in both:
        has_staged(each, 4200)
    assert len(blocks_on(disk)) == 2 * BLOCKS

    read(loaders[0], 32)
    wait_until(lambda: len(blocks_on(disk)) == BLOCKS)
    np.testing.assert_array_equal(read(loaders[1], 32), read(loader_of(blend), 32))
    assert both[1].counts.direct == 0


def test_folders_that_nobody_uses_are_deleted(blend: BlendConfig, disk: Path) -> None:
    """A run with fewer processes on the node than the killed one frees the disk."""
    disk.mkdir()
    folders = [StageFolder.claim(disk, process=process) for process in range(3)]
    for each in folders[1:]:
        each.keep("shard", "0", b"block")
    for each in folders[:2]:
        each.release()
    staged = staging(loader_of(blend), disk)

    assert {path.name for path in disk.iterdir()} == {
        staged.stager.folder.path.name,
        folders[2].path.name,
    }
    folders[2].release()


def failing(monkeypatch: pytest.MonkeyPatch, number: int, *, after: int) -> None:
    """Let writing of blocks fail after some of them."""
    keep, kept = StageFolder.keep, [0]

    def fail(folder: StageFolder, shard: str, block: int, data: bytes) -> None:
        kept[0] += 1
        if kept[0] > after:
            raise OSError(number, os.strerror(number))
        keep(folder, shard, block, data)

    monkeypatch.setattr(StageFolder, "keep", fail)


@pytest.mark.parametrize(
    ("number", "text"), [(errno.ENOSPC, "the disk is full"), (errno.EIO, "staging ends")]
)
def test_a_disk_that_cannot_be_written_is_warned_of_once(
    blend: BlendConfig,
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    text: str,
) -> None:
    failing(monkeypatch, number, after=5)
    loader = loader_of(blend)
    staged = staging(loader, disk)
    wait_until(lambda: text in caplog.text)

    np.testing.assert_array_equal(read(loader, 32), read(loader_of(blend), 32))
    assert len([each for each in caplog.records if each.levelno == logging.WARNING]) == 1
    assert len(blocks_on(disk)) <= 5
    assert staged.counts.direct > 0


def test_a_lost_disk_is_warned_of_once(
    blend: BlendConfig, disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loader = loader_of(blend)
    staged = staging(loader, disk)
    has_staged(staged, 4200)
    batches = iter(loader)
    before = next(batches).input_ids.numpy()
    shutil.rmtree(disk)
    tokens = np.concatenate([before, *(next(batches).input_ids.numpy() for _ in range(31))])

    np.testing.assert_array_equal(tokens, read(loader_of(blend), 32))
    wait_until(lambda: "is gone, so staging ends" in caplog.text)
    assert staged.counts.direct > 0
    assert len(caplog.records) == 1


def test_a_damaged_block_is_read_from_its_shard(
    blend: BlendConfig, disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loader = loader_of(blend)
    staged = staging(loader, disk)
    has_staged(staged, 4200)
    for path in blocks_on(disk):
        os.truncate(path, 100)

    np.testing.assert_array_equal(read(loader, 32), read(loader_of(blend), 32))
    assert caplog.text.count("found 100 bytes, expected") == 1
    assert staged.counts.direct == staged.counts.read


def test_a_replaced_object_is_an_error(store: ObjectStore, blend: BlendConfig, disk: Path) -> None:
    """What was staged before stays right; nothing of the new object is read."""
    loader = loader_of(uploaded(store, blend))
    staged = staging(loader, disk, num_bytes=6 * BLOCK_BYTES)
    wait_until(lambda: staged.counts.on_disk > 4 * BLOCK_BYTES)
    store.put("web/web_0.bin", bytes(1800))

    with pytest.raises(CorruptShardError, match=r"web_0\.bin: was replaced during the run"):
        read(loader, 32)


@pytest.mark.parametrize(
    ("path", "expected"), [("none/disk", "No such file"), ("web_code.txt", "File exists")]
)
def test_a_folder_that_cannot_be_used_is_an_error(
    blend: BlendConfig, tmp_path: Path, path: str, expected: str
) -> None:
    with pytest.raises(OutputError, match=f"data_stage_path is .*{path}.*{expected}"):
        staging(loader_of(blend), tmp_path / path)


def test_too_few_bytes_are_an_error(blend: BlendConfig, disk: Path) -> None:
    with pytest.raises(ConfigError, match="data_stage_bytes is 511, expected at least 512"):
        staging(loader_of(blend), disk, num_bytes=511)

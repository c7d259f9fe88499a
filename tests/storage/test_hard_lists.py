"""File lists and folders at their worst: long, tangled, with names that hold anything."""

import itertools
import os
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.errors import FileListError, MissingShardError
from blendtitan.storage import file_list
from blendtitan.storage.file_list import ShardEntry, read_file_list
from blendtitan.storage.list_forms import write_file_list
from tests.conftest import WriteShard

NUM_LINES = 100_000


def long_list(num_lines: int = NUM_LINES) -> list[str]:
    return [f"0.5 shards/part_{i:06d} corpus_{i % 500}" for i in range(num_lines)]


def write(tmp_path: Path, lines: list[str]) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_list_of_100_000_lines_is_read(tmp_path: Path) -> None:
    entries = read_file_list(write(tmp_path, long_list()))

    assert len(entries) == NUM_LINES
    assert len({entry.corpus for entry in entries}) == 500


def test_memory_grows_with_the_lines_and_no_faster(tmp_path: Path) -> None:
    peaks = []
    for num_lines in (1_000, 8_000):
        path = write(tmp_path, long_list(num_lines))
        tracemalloc.start()
        read_file_list(path)
        peaks.append(tracemalloc.get_traced_memory()[1] / num_lines)
        tracemalloc.stop()

    assert peaks[1] < 2 * peaks[0]


def test_each_line_of_a_list_costs_two_file_system_calls(
    tmp_path: Path, write_shard: WriteShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its two files, or what it is instead; however long the list is."""
    names = [f"part_{i}" for i in range(50)]
    for name in names:
        write_shard(name, [[5, 2]])
    asked: Counter[str] = Counter()
    for name in ("stat", "lstat"):
        call = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, name=name, call=call, **kw: (asked.update([name]),
                                                                 call(*args, **kw))[1],
        )  # fmt: skip
    for lines in (long_list(100), long_list(5_000), [f"1 {name} web" for name in names]):
        path = write(tmp_path, lines)
        asked.clear()
        read_file_list(path)

        assert asked.total() <= 2 * len(lines) + 20


@pytest.mark.parametrize(
    ("number", "line", "message"),
    [
        (50_000, "nan shards/x web", "weight is nan"),
        (5_000, "heavy shards/x web", "weight is 'heavy'"),
    ],
)
def test_a_wrong_line_is_named_however_far_down_it_is(
    tmp_path: Path, number: int, line: str, message: str
) -> None:
    lines = long_list(number)
    lines[-1] = line

    with pytest.raises(FileListError, match=rf"list\.txt:{number}: {message}"):
        read_file_list(write(tmp_path, lines))


def test_a_weight_too_small_to_be_shared_is_refused(
    tmp_path: Path, write_shard: WriteShard
) -> None:
    """A shard of weight 0 would never be read, in silence."""
    for name in ("data/a", "data/b"):
        write_shard(name, [[5, 2]])

    with pytest.raises(
        FileListError, match=r"the part of .*data/a in its folder's weight rounds to 0"
    ):
        read_file_list(write(tmp_path, ["5e-324 data"]))


def test_a_zero_byte_is_refused(tmp_path: Path) -> None:
    """No path may hold one, and calls of the system fail on it in ways of their own."""
    with pytest.raises(FileListError, match=r"list\.txt:2: found a zero byte"):
        read_file_list(write(tmp_path, ["1 a", "1 b\0c"]))


def test_lines_are_counted_as_editors_count_them(tmp_path: Path) -> None:
    """Python's splitlines also takes these for ends of lines."""
    odd = "\x0b\x0c\x1c\x85\u2028"

    with pytest.raises(FileListError, match=r"list\.txt:3: weight is nan"):
        read_file_list(write(tmp_path, [f'1 "a{odd}b" x', f"# {odd}", "nan c"]))


def test_a_shard_named_twice_in_a_long_list_is_named(tmp_path: Path) -> None:
    lines = [*long_list(2000), "1 shards/../shards/./part_000123 again"]

    with pytest.raises(FileListError, match="part_000123 is listed twice"):
        read_file_list(write(tmp_path, lines))


def test_shards_without_weights_are_opened_many_at_a_time(
    tmp_path: Path, write_shard: WriteShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line after the other, the waiting for each would add up."""
    names = [f"part_{i}" for i in range(40)]
    for name in names:
        write_shard(name, [[5, 2]])
    calls = itertools.count()
    both = threading.Barrier(2)
    num_tokens = file_list._num_tokens

    def noting(prefix: str) -> float:
        if next(calls) < 2:
            both.wait(timeout=60)  # passed only by two that are opened at once
        return num_tokens(prefix)

    monkeypatch.setattr(file_list, "_num_tokens", noting)

    assert [entry.weight for entry in read_file_list(write(tmp_path, names))] == [2.0] * 40


HARD_NAMES = [
    "with blanks",
    " leading and trailing ",
    "it's",
    'say "hello"',
    "#hash",
    "a#b",
    "wörld-世界-🙂",
    "e\u0301",  # not the one character that looks the same
    "-1",
    "nan",
    "0.5",
    "--flag",
    "*?[a-z]",
    "$HOME",
    "back\\slash",
    "%s{0}",
    "x" * 200,
    "name.bin",
    "line\u2028separator",
]


@pytest.mark.parametrize("name", HARD_NAMES)
def test_a_name_may_hold_anything_that_a_list_can(
    tmp_path: Path, write_shard: WriteShard, name: str
) -> None:
    """From the list, and from the folder, to the batch."""
    write_shard(f"data/{name}/{name}", [[5, 6, 7, 2]] * 9)
    quote = "'" if '"' in name else '"'
    path = write(tmp_path, [f"1 {quote}data/{name}/{name}{quote} {quote}{name}{quote}"])
    for source in (path, tmp_path / "data"):
        config = BlendConfig(data_file_list=source, seq_length=4, eod_token_id=2, split="1")
        dataset = build_datasets(config).train
        assert dataset is not None

        assert dataset.corpora == (name,)
        assert dataset[0].shard == str(tmp_path / "data" / name / name)
        assert len(next(iter(DataLoader(dataset, 2))).input_ids) == 2


@pytest.mark.parametrize("name", [name for name in HARD_NAMES if name.isprintable()])
def test_such_names_are_written_to_lists_too(tmp_path: Path, name: str) -> None:
    entry = ShardEntry(tmp_path.resolve() / name, 0.1, name)
    write_file_list(tmp_path / "list.txt", [entry])

    assert list(read_file_list(tmp_path / "list.txt")) == [entry]


def test_a_name_with_the_end_of_a_line_works_in_a_folder(
    tmp_path: Path, write_shard: WriteShard
) -> None:
    """No list can hold it, and writing one says so."""
    write_shard("data/two\nlines/a\nb", [[5, 6, 7, 2]] * 9)
    config = BlendConfig(data_file_list=tmp_path / "data", seq_length=4, eod_token_id=2, split="1")
    dataset = build_datasets(config).train
    assert dataset is not None

    assert dataset.corpora == ("two\nlines",)
    assert len(dataset[0].input_ids) == 4
    with pytest.raises(FileListError, match="cannot be written to a list"):
        write_file_list(tmp_path / "list.txt", read_file_list(tmp_path / "data"))


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path, write_shard: WriteShard) -> None:
    """It could not be logged, kept in a checkpoint or hashed."""
    prefix = write_shard("data/web", [[5, 2]])
    for suffix in (".bin", ".idx"):
        os.rename(f"{prefix}{suffix}", os.fsencode(prefix) + b"\xff" + suffix.encode())

    with pytest.raises(FileListError, match=r"'web\\udcff\.(bin|idx)' is not UTF-8"):
        read_file_list(tmp_path / "data")


@pytest.mark.parametrize("reached_by", ["link/web/a", "data/../data/web/a", "./data//web/a",
                                        "deep/down/web/a", "copy"])  # fmt: skip
def test_a_shard_is_named_twice_however_it_is_reached(
    tmp_path: Path, write_shard: WriteShard, reached_by: str
) -> None:
    write_shard("data/web/a", [[5, 2]])
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/down").symlink_to("../link")
    for suffix in (".bin", ".idx"):
        (tmp_path / f"copy{suffix}").symlink_to(f"data/web/a{suffix}")

    with pytest.raises(FileListError, match="is listed twice"):
        read_file_list(write(tmp_path, ["1 data/web/a x", f"1 {reached_by} y"]))


def test_hard_links_are_shards_of_their_own_and_links_to_them_are_not(
    tmp_path: Path, write_shard: WriteShard
) -> None:
    write_shard("a", [[5, 2]])
    for suffix in (".bin", ".idx"):
        os.link(tmp_path / f"a{suffix}", tmp_path / f"hard{suffix}")
        (tmp_path / f"soft{suffix}").symlink_to(f"hard{suffix}")

    assert len(read_file_list(write(tmp_path, ["1 a x", "1 hard y"]))) == 2
    for lines in (["1 a x", "1 hard y", "1 soft z"], ["1 soft z", "1 hard y"]):
        with pytest.raises(FileListError, match="is listed twice"):
            read_file_list(write(tmp_path, lines))


def test_folders_that_link_to_each_other_are_walked_once(
    tmp_path: Path, write_shard: WriteShard
) -> None:
    """However many links there are: their paths would grow without end."""
    write_shard("data/web/a", [[5, 2]])
    (tmp_path / "other").mkdir()
    for i in range(5):
        (tmp_path / f"data/web/loop_{i}").symlink_to(tmp_path / "other")
        (tmp_path / f"other/loop_{i}").symlink_to(tmp_path / "data/web")

    assert len(read_file_list(tmp_path / "data")) == 1


@pytest.mark.parametrize("target", [".", "..", "/", "itself"])
def test_a_link_that_leads_above_or_to_itself_is_not_followed(
    tmp_path: Path, write_shard: WriteShard, target: str
) -> None:
    write_shard("data/web/a", [[5, 2]])
    (tmp_path / "data/web/itself").symlink_to(target)

    assert len(read_file_list(tmp_path / "data")) == 1


def test_a_file_that_links_to_itself_is_an_error(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard("data/web/a", [[5, 2]])
    (tmp_path / "data/web/b.idx").symlink_to("b.idx")

    with pytest.raises(MissingShardError, match=r"b\.idx: cannot be opened \(Too many levels"):
        read_file_list(tmp_path / "data")


def test_a_link_to_a_folder_beside_is_followed(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard("elsewhere/a", [[5, 2]])
    (tmp_path / "data").mkdir()
    (tmp_path / "data/web").symlink_to("../elsewhere")

    assert [entry.corpus for entry in read_file_list(tmp_path / "data")] == ["web"]

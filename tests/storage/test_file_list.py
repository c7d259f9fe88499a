"""File lists: three forms of a line, folders, comments; anything else is refused by line."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.errors import FileListError, MissingShardError
from blendtitan.storage.file_list import ShardEntry, read_file_list
from blendtitan.storage.list_forms import named_shards, write_file_list
from tests.conftest import WriteShard


def listed(tmp_path: Path, text: str) -> list[tuple[str, float, str]]:
    path = tmp_path / "list.txt"
    path.write_text(text)
    return [
        (str(entry.prefix.relative_to(tmp_path)), entry.weight, entry.corpus)
        for entry in read_file_list(path)
    ]


def test_a_line_may_name_weight_prefix_and_corpus(tmp_path: Path) -> None:
    assert listed(tmp_path, "0.7 web/part_00 web\n3 b/all books") == [
        ("web/part_00", 0.7, "web"),
        ("b/all", 3.0, "books"),
    ]


def test_without_a_corpus_the_file_name_is_the_corpus(tmp_path: Path) -> None:
    """So moving the data to another folder does not change the order."""
    assert listed(tmp_path, "1 web/part_00") == [("web/part_00", 1.0, "part_00")]


def test_without_weights_shards_are_weighted_by_their_tokens(
    tmp_path: Path, write_shard: WriteShard
) -> None:
    write_shard("web", [[5, 6, 2], [7, 2]])
    write_shard("books", [[5, 2]])

    assert listed(tmp_path, "web\nbooks") == [("web", 5.0, "web"), ("books", 2.0, "books")]


def test_comments_blank_lines_and_a_byte_order_mark_are_ignored(tmp_path: Path) -> None:
    text = "\ufeff# weights of May\n\n  1 web # the crawl\n\t\n2 'a#b' c#d\n"

    assert listed(tmp_path, text) == [("web", 1.0, "web"), ("a#b", 2.0, "c#d")]


def test_paths_may_contain_spaces_when_quoted(tmp_path: Path) -> None:
    assert listed(tmp_path, '1 "my books/all of them" "old books"') == [
        ("my books/all of them", 1.0, "old books")
    ]


def test_absolute_paths_are_kept(tmp_path: Path) -> None:
    assert listed(tmp_path, f"1 {tmp_path}/elsewhere/web")[0][0] == "elsewhere/web"


def test_a_folder_stands_for_its_shards_one_corpus_per_subfolder(
    tmp_path: Path, write_shard: WriteShard
) -> None:
    write_shard("tokens/web/b/part_1", [[5, 6, 2]])
    write_shard("tokens/web/a", [[5, 2]])
    write_shard("tokens/code/a", [[5, 6, 7, 2]])
    write_shard("tokens/loose", [[2]])
    expected = [("code/a", 4.0, "code"), ("loose", 1.0, "tokens"), ("web/a", 2.0, "web"),
                ("web/b/part_1", 3.0, "web")]  # fmt: skip
    found = [
        (str(e.prefix.relative_to(tmp_path / "tokens")), e.weight, e.corpus)
        for e in read_file_list(tmp_path / "tokens")
    ]

    assert found == expected


def test_the_weight_of_a_folder_is_shared_by_tokens(
    tmp_path: Path, write_shard: WriteShard
) -> None:
    write_shard("tokens/web/a", [[5, 6, 2]])
    write_shard("tokens/code/a", [[2]])

    assert listed(tmp_path, "0.5 tokens\n1 other") == [
        ("tokens/code/a", 0.125, "code"),
        ("tokens/web/a", 0.375, "web"),
        ("other", 1.0, "other"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 a\nnan b", r"list\.txt:2: weight is nan, expected a finite number above 0"),
        ("-1 a", r"list\.txt:1: weight is -1\.0"),
        ("0 a", r"weight is 0\.0"),
        ("inf a", r"weight is inf"),
        ("heavy a", r"weight is 'heavy', expected a number"),
        ("1 a b c", r"found 4 words"),
        ('1 "a', r"expected a closing quote"),
        ("1 a ''", r"the corpus is empty"),
        ("# nothing", r"found no shards"),
        ("1 a\nb", r"list\.txt:2: the line has no weight, but .*list\.txt:1 has one"),
        ("1 a x\n2 a x", r"is listed twice"),
        ("1 x/a\n2 y/a", r"Name the corpus of each"),
        ("1 x/p web\n2 y/web", r"another line's corpus 'web'"),
        ('"a"b', r"found 'b' after a quote"),
        ("1.5e308 a\n1.5e308 b", r"the weights sum to infinity"),
        ("1 .", r"list\.txt:1: the folder \S+ holds no \.idx file"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FileListError, match=message):
        listed(tmp_path, text)


def test_a_missing_list_suggests_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "file_list.txt").write_text("")

    with pytest.raises(FileListError, match=r"Did you mean .*file_list\.txt\?"):
        read_file_list(tmp_path / "flie_list.txt")


def test_half_a_shard_in_a_folder_is_an_error(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard("tokens/web/a", [[5, 2]])
    write_shard("tokens/web/b", [[5, 2]])
    (tmp_path / "tokens/web/a.idx").unlink()

    with pytest.raises(MissingShardError, match=r"a\.bin exists, so the copy is incomplete"):
        read_file_list(tmp_path / "tokens")


def test_a_folder_that_cannot_be_searched_is_an_error(
    tmp_path: Path, write_shard: WriteShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard("tokens/web/a", [[5, 2]])
    scandir = os.scandir

    def scan(path: str) -> object:
        if str(path).endswith("web"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(FileListError, match=r"web: cannot be searched \(Permission denied\)"):
        read_file_list(tmp_path / "tokens")


def test_a_shard_reached_by_two_paths_is_named_twice(
    tmp_path: Path, write_shard: WriteShard
) -> None:
    write_shard("store/a", [[5, 2]])
    (tmp_path / "link").symlink_to(tmp_path / "store")
    for suffix in (".bin", ".idx"):
        (tmp_path / f"b{suffix}").symlink_to(tmp_path / f"store/a{suffix}")
    for text in ("1 store/a x\n1 link/a x", "1 store/a x\n1 b x", "1 ."):
        with pytest.raises(FileListError, match="is listed twice"):
            listed(tmp_path, text)


def test_a_link_to_a_folder_above_is_not_walked_for_ever(
    tmp_path: Path, write_shard: WriteShard
) -> None:
    write_shard("tokens/web/a", [[5, 2]])
    (tmp_path / "tokens/web/loop").symlink_to(tmp_path / "tokens")

    assert len(read_file_list(tmp_path / "tokens")) == 1


NAMES = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1).filter(
    lambda name: "/" not in name and name.strip(".") and not ('"' in name and "'" in name)
)


def test_shards_are_named_by_prefixes_folders_and_lists(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    """In this order; damaged ones too, because none is opened."""
    prefix = write_shard("one", [[1]])
    write_shard("tokens/web/a", [[1]])
    (tmp_path / "tokens/web/b.bin").touch()
    (tmp_path / "list.txt").write_text("1 absent x\n2.5 other mine\n")

    assert named_shards([prefix, tmp_path / "tokens", tmp_path / "list.txt"]) == [
        (prefix, "one"),
        (tmp_path / "tokens/web/a", "web"),
        (tmp_path / "tokens/web/b", "web"),
        (tmp_path / "absent", "x"),
        (tmp_path / "other", "mine"),
    ]


def test_a_file_of_a_shard_does_not_name_it(write_shard: WriteShard) -> None:
    """A pattern of the shell finds it easily."""
    with pytest.raises(FileListError, match=r"web\.idx: name the shard without \.idx"):
        named_shards([Path(f"{write_shard('web', [[1]])}.idx")])


@given(weight=st.floats(1e-300, 1e300), name=NAMES, corpus=NAMES)
def test_what_is_written_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, weight: float, name: str, corpus: str
) -> None:
    """Weights are never rounded, names never cut."""
    folder = tmp_path_factory.mktemp("list").resolve()
    entry = ShardEntry(folder / "a b" / name, weight, corpus)
    write_file_list(folder / "list.txt", [entry], header="made by a test")

    assert list(read_file_list(folder / "list.txt")) == [entry]

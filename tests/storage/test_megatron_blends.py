"""Megatron-LM's blends as file lists; what they say that cannot be done here is an error."""

import json
from pathlib import Path

import pytest

from blendtitan.errors import FileListError
from blendtitan.storage.file_list import read_file_list
from tests.conftest import EOD, WriteShard


@pytest.fixture
def shards(write_shard: WriteShard, tmp_path: Path) -> Path:
    """A folder with the shards ``a`` and ``b c``, of 2 and 3 tokens."""
    write_shard("a", [[5, EOD]])
    write_shard("b", [[6, 7, EOD]])
    return tmp_path


def read(folder: Path, text: str) -> list[tuple[str, float]]:
    (folder / "list").write_text(text)
    found = read_file_list(folder / "list")
    return [(str(entry.prefix.relative_to(folder)), entry.weight) for entry in found]


@pytest.mark.parametrize(
    "text",
    ["30 a 70 b", "30 a 70 b\n", "30\na\n70\nb\n", "30 a\n70 b", "\n30   a\t70\n\n b"],
)
def test_weights_and_prefixes_in_turn_however_they_are_broken(shards: Path, text: str) -> None:
    assert read(shards, text) == [("a", 30.0), ("b", 70.0)]


@pytest.mark.parametrize("text", ["a b", "a\nb", '["a", "b"]', '{"train": ["a", "b"]}'])
def test_prefixes_alone_weigh_their_tokens(shards: Path, text: str) -> None:
    assert read(shards, text) == [("a", 2.0), ("b", 3.0)]


@pytest.mark.parametrize(
    "blend",
    [
        ["30", "a", "70", "b"],
        [30, "a", 70.0, "b"],
        {"train": ["30", "a", "70", "b"], "valid": None, "test": []},
        {split: ["30", "a", "70", "b"] for split in ("train", "valid", "test")},
    ],
)
def test_a_json_blend_is_read_where_all_splits_have_one_list(shards: Path, blend: object) -> None:
    assert read(shards, json.dumps(blend, indent=2)) == [("a", 30.0), ("b", 70.0)]


@pytest.mark.parametrize(
    ("blend", "message"),
    [
        ({"train": ["a"], "valid": ["b"]}, "valid names other shards than train"),
        ({"valid": ["a"]}, "found the keys valid, expected a list of shards as train"),
        ({"train": ["a"], "web": ["b"]}, "found the keys train, web"),
        ({"train": "a"}, "found str, expected a list of shards"),
        ([["30", "a"]], r"found \['30', 'a'\], expected a weight or a prefix"),
        (["30", "a", "b"], "found the number 30 where a prefix was expected"),
        (["-1", "a"], "a: weight is -1"),
        ([True, "a"], "found True"),
    ],
)
def test_what_a_json_blend_cannot_mean_here_is_an_error(
    shards: Path, blend: object, message: str
) -> None:
    with pytest.raises(FileListError, match=message):
        read(shards, json.dumps(blend))


def test_words_that_are_no_shards_may_be_a_path_with_spaces(shards: Path) -> None:
    with pytest.raises(FileListError, match=r"list:1: .*Quote a path that contains spaces"):
        read(shards, "a old/b")
    with pytest.raises(FileListError, match=r"list:1: found 4 words"):
        read(shards, "1 my old books")


def test_a_third_word_stays_the_corpus(shards: Path) -> None:
    (shards / "list").write_text("30 a 70\n20 b 80")

    assert read_file_list(shards / "list").corpora == ["70", "80"]


def test_a_relative_prefix_may_start_in_the_present_folder(
    shards: Path, write_shard: WriteShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Megatron-LM takes it from there. Where both folders have such a shard, neither is guessed."""
    write_shard("elsewhere/only_here", [[8, EOD]])
    monkeypatch.chdir(shards / "elsewhere")

    assert read(shards, "1 a 2 only_here") == [("a", 1.0), ("elsewhere/only_here", 2.0)]
    write_shard("elsewhere/a", [[8, EOD]])
    with pytest.raises(FileListError, match="a is a shard in the folder of the list and in the"):
        read(shards, "1 a 2 only_here")

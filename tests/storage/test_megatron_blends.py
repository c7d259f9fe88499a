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
        ({"train": ["a"], "valid": ["b"]}, "valid lists other shards than train"),
        ({"valid": ["a"]}, "found the keys valid, expected a list of shards under train"),
        ({"train": ["a"], "web": ["b"]}, "found the keys train, web"),
        ({"train": "a"}, 'found "a", expected a list of shards'),
        ([], "found an empty list, expected a list of shards"),
        (None, "found null, expected a list of shards"),
        (True, "found true, expected a list of shards"),
        (0.3, "found 0.3, expected a list of shards"),
        ([None, "a"], "found null, expected a weight or a prefix"),
        ([["30", "a"]], r'found \["30", "a"\], expected a weight or a prefix'),
        (["30", "a", "b"], "found the number 30, expected a prefix"),
        (["-1", "a"], "a: weight is -1"),
        ([True, "a"], "found true"),
    ],
)
def test_a_json_blend_without_a_counterpart_is_an_error(
    shards: Path, blend: object, message: str
) -> None:
    with pytest.raises(FileListError, match=message):
        read(shards, json.dumps(blend))


def test_words_that_name_no_shards_may_be_a_path_with_spaces(shards: Path) -> None:
    with pytest.raises(FileListError, match=r"list:1: .*Quote a path that contains spaces"):
        read(shards, "a old/b")
    with pytest.raises(FileListError, match=r"list:1: found 4 words"):
        read(shards, "1 my old books")


def test_a_third_word_stays_the_corpus(shards: Path) -> None:
    (shards / "list").write_text("30 a 70\n20 b 80")

    assert read_file_list(shards / "list").corpora == ["70", "80"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.3 a 0.7", "list:1: found the number 0.7 after the only shard"),
        ("30 a 7e-1", "list:1: found the number 7e-1 after the only shard"),
        ("0.3 a {folder}/b", "list:1: found the shard .*/b in place of a corpus"),
        ("0.3 a {folder}/b\n0.7 c {folder}/b", "list:1: found the shard .*/b in place of a corpus"),
    ],
)
def test_a_blend_that_was_cut_is_not_taken_for_a_list_with_corpora(
    shards: Path, text: str, message: str
) -> None:
    with pytest.raises(FileListError, match=message):
        read(shards, text.format(folder=shards))


@pytest.mark.parametrize(
    ("text", "corpora"),
    [
        ("1 a 2024", ["2024"]),
        ("1 a a", ["a"]),
        ("1 a 0.5\n1 b 0.6", ["0.5", "0.6"]),
        ("1 a b\n1 b b", ["b", "b"]),
        ("1 {folder}/a {folder}/a", ["{folder}/a"]),
        ("1 a web/part", ["web/part"]),
        ("1 a b", ["b"]),
        ("1 a '0.5'", ["0.5"]),
        ('1 a "{folder}/b"', ["{folder}/b"]),
    ],
)
def test_a_corpus_may_have_any_other_name(shards: Path, text: str, corpora: list[str]) -> None:
    (shards / "list").write_text(text.format(folder=shards))
    expected = [corpus.format(folder=shards) for corpus in corpora]

    assert read_file_list(shards / "list").corpora == expected


def test_a_shard_may_be_named_like_a_value_of_json(shards: Path, write_shard: WriteShard) -> None:
    write_shard("null", [[5, EOD]])

    assert read(shards, "null") == [("null", 2.0)]


def test_a_cut_json_file_is_not_taken_for_a_text(shards: Path) -> None:
    (shards / "list.json").write_text('["30", "a", ')

    with pytest.raises(FileListError, match=r"list\.json: not JSON .*expected a list of shards"):
        read_file_list(shards / "list.json")


@pytest.mark.parametrize("text", ["1 x/a 2 y/a", "x/a\ny/a", '["1", "x/a", "2", "y/a"]'])
def test_a_list_of_ours_distinguishes_equal_file_names(
    shards: Path, write_shard: WriteShard, text: str
) -> None:
    """The advice of the error can be followed."""
    for folder in ("x", "y"):
        write_shard(f"{folder}/a", [[5, EOD]])
    with pytest.raises(FileListError, match="write the list as text with a line WEIGHT PREFIX CO"):
        read(shards, text)

    assert read(shards, "1 x/a x/a\n2 y/a y") == [("x/a", 1.0), ("y/a", 2.0)]


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

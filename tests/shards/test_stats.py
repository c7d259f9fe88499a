import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from blendtitan.cli import main
from tests.conftest import WriteShard


@pytest.fixture
def folder(write_shard: WriteShard, tmp_path: Path) -> Path:
    """Two corpora: documents of 1 to 10 tokens, in two shards and two types, and one of 7."""
    write_shard("tokens/web/a", [[5] * length for length in (1, 2, 3, 4, 5, 6)])
    write_shard("tokens/web/b", [[5] * length for length in (10, 9, 8, 7)], "<i4")
    write_shard("tokens/code/a", [[5] * 7])
    return tmp_path / "tokens"


def test_json_has_shards_corpora_and_their_total(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stats", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    prefixes = [shard["prefix"] for shard in found["shards"]]
    assert prefixes == [f"{folder}/{name}" for name in ("code/a", "web/a", "web/b")]
    assert found["shards"][1]["tokens_per_document"] == {"min": 1, "median": 3, "p90": 6, "max": 6}
    assert found["corpora"]["web"] == {
        "shards": 2,
        "documents": 10,
        "tokens": 55,
        "dtypes": ["int32", "uint16"],
        "tokens_per_document": {"min": 1, "median": 5, "p90": 9, "max": 10},
        "shards_with_sources": 0,
    }
    assert (found["total"]["documents"], found["total"]["tokens"]) == (11, 62)


def test_the_table_has_the_same_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", str(folder)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]

    assert [f"{folder}/web/b", "1", "4", "34", "int32", "7", "8", "10", "10"] in rows
    assert ["web", "2", "10", "55", "int32,", "uint16", "1", "5", "9", "10"] in rows


def test_a_shard_that_cannot_be_read_fails_the_command_and_hides_no_other(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it is found in a folder or named, by any of its files."""
    (folder / "web" / "a.idx").unlink()
    (folder / "web" / "b.idx").write_bytes(b"short")

    status = main(["stats", str(folder), "--json"])
    shown = capsys.readouterr()
    found = json.loads(shown.out)

    assert status == 1
    assert f"{folder}/web/a.idx: cannot be opened" in shown.err
    assert f"{folder}/web/b.idx: found 5 bytes" in shown.err
    assert "2 of 3 shards cannot be read" in shown.err
    assert "cannot be opened" in found["shards"][1]["error"]
    assert found["corpora"].keys() == {"code"}
    assert found["total"]["tokens"] == 7


def test_documents_without_text_and_with_unknown_text_are_counted_with_a_tokenizer(
    write_shard: WriteShard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training on them teaches nothing, and they indicate an unsuitable tokenizer."""
    path = write_word_tokenizer(tmp_path)
    write_shard("tokens/web/a", [[2, 0, 0, 1], [1], [2, 1], [0, 1], [1]])
    asked = [str(tmp_path / "tokens"), "--tokenizer", str(path)]

    assert main(["stats", *asked]) == 0
    shown = capsys.readouterr().out
    assert main(["stats", *asked, "--json"]) == 0
    total = json.loads(capsys.readouterr().out)["total"]
    assert main(["verify", *asked, "--json", "--no-record"]) == 0
    [verified] = json.loads(capsys.readouterr().out)["shards"]

    assert "2 of 5 documents contain the unknown token" in shown
    assert "2 of 5 documents consist of EOD only" in shown
    for found in (total, verified):
        assert (found["documents_with_unknown"], found["documents_of_eod_only"]) == (2, 2)


def write_word_tokenizer(folder: Path) -> Path:
    """A tokenizer whose unknown token is named only in its model."""
    vocab = {"<unk>": 0, "</s>": 1, "a": 2}
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.add_special_tokens(["</s>"])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return folder

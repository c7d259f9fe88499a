"""The source of every document, from real files of every format to ``PREFIX.docs.parquet``."""

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from blendtitan.cli import main
from blendtitan.document_sources import open_sources
from blendtitan.errors import ConfigError
from blendtitan.prepare.input_file import ReadOptions
from blendtitan.prepare.merge import merge
from blendtitan.prepare.streams import zstd
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.storage.reader import ShardIndex
from tests.prepare.conftest import WriteJsonl

ROWS = [
    {"text": "one", "url": "https://a.org/1", "meta": {"id": 7}},
    {"text": "", "url": "https://a.org/empty"},
    {"text": "two", "url": None},
    {"text": "three", "url": "https://b.net/3", "meta": {"id": "x"}},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
STARTS = [0, *(at + 1 for at, byte in enumerate(LINES) if byte == 10)]
ARRAY = json.dumps(ROWS).encode()
TABLE = pa.table(
    {
        "text": [row["text"] for row in ROWS],
        "url": [row["url"] for row in ROWS],
        "meta": pa.array([{"id": "7"}, None, None, {"id": "x"}]),
    }
)
CSV = 'url,text\nhttps://a.org/1,one\n,""\n,two\nhttps://b.net/3,three\n'


def write_parquet(path: Path) -> None:
    pq.write_table(TABLE, path, row_group_size=1)


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_bytes(LINES),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "a.jsonl.zst": lambda path: path.write_bytes(zstd.compress(LINES)),
    "a.jsonl.xz": lambda path: path.write_bytes(lzma.compress(LINES)),
    "a.json.bz2": lambda path: path.write_bytes(bz2.compress(ARRAY)),
    "a.parquet": write_parquet,
    "a.arrow": lambda path: feather.write_feather(TABLE, path),
    "a.csv": lambda path: path.write_text(CSV),
}


def recorded(prefix: Path) -> list[dict[str, Any]]:
    """The rows beside a shard: those of ``pyarrow`` and ours agree."""
    rows = pq.read_table(f"{prefix}.docs.parquet").to_pylist()
    with open_sources(prefix) as sources:
        assert sources is not None
        for source, row in zip(sources.of_documents(range(len(rows))), rows, strict=True):
            assert {"row": None, "byte": None} | source.json() == row
    assert len(rows) == ShardIndex.open(prefix).num_documents
    return rows


def config(tokenizer: Path, keep: str = "", **more: Any) -> TokenizeConfig:
    fields = tuple(filter(None, keep.split(",")))
    return TokenizeConfig(tokenizer=tokenizer, options=ReadOptions(keep=fields, **more))


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("job_bytes", [1, 10**9])
def test_every_document_has_its_input_its_place_and_its_fields(
    name: str, job_bytes: int, tokenizer_path: Path, tmp_path: Path
) -> None:
    """A rejected text has no row, and later ones keep their places, in one job or in several."""
    path = tmp_path / name
    WRITERS[name](path)
    settings = replace(config(tokenizer_path, "url,meta.id"), max_rejects=1, job_bytes=job_bytes)

    tokenize([path], tmp_path / "out", settings)
    rows = recorded(tmp_path / "out/a")

    assert {row["input"] for row in rows} == {str(path)}
    if path.suffix in (".parquet", ".arrow", ".csv"):
        assert [row["row"] for row in rows] == [0, 2, 3]
    else:
        content = ARRAY if "json." in name.replace("jsonl.", "") else LINES
        texts = [json.JSONDecoder().raw_decode(content[row["byte"] :].decode())[0] for row in rows]
        assert [text["text"] for text in texts] == ["one", "two", "three"]
    urls = ["https://a.org/1", "" if name == "a.csv" else None, "https://b.net/3"]
    assert [row["url"] for row in rows] == urls
    ids = [None] * 3 if name == "a.csv" else ["7", None, "x"]
    assert [row["meta.id"] for row in rows] == ids


@pytest.mark.parametrize(("txt", "places"), [("file", [0]), ("line", [0, 5])])
def test_plain_text_has_places_and_no_fields(
    txt: Any, places: list[int], tokenizer_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")

    tokenize([tmp_path / "a.txt"], tmp_path / "out", config(tokenizer_path, "url", txt=txt))
    rows = recorded(tmp_path / "out/a")

    assert [(row["byte"], row["url"]) for row in rows] == [(place, None) for place in places]


def test_fields_of_any_type_are_kept_as_text(tokenizer_path: Path, tmp_path: Path) -> None:
    """So that shards with other types of one field can be joined."""
    values = [1, 0.5, True, [1, "ü"], {"a": None}, "\ud800"]
    lines = [json.dumps({"text": "a", "x": value}) + "\n" for value in values]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    columns = {"text": ["a"], "x": [datetime(2026, 1, 2)], "y": pa.array([b"\xff"])}
    pq.write_table(pa.table(columns), tmp_path / "b.parquet")

    tokenize([tmp_path / "a.jsonl"], tmp_path / "out", config(tokenizer_path, "x"))
    tokenize([tmp_path / "b.parquet"], tmp_path / "out", config(tokenizer_path, "x,y"))
    [times] = recorded(tmp_path / "out/b")

    kept = [row["x"] for row in recorded(tmp_path / "out/a")]
    assert kept == ["1", "0.5", "true", '[1, "ü"]', '{"a": null}', "\\ud800"]
    assert (times["x"], times["y"]) == ("2026-01-02 00:00:00.000000", "\\xff")


def test_several_values_on_a_line_have_the_place_of_the_line(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b", "id": 1} {"text": "c"}\n')

    tokenize([tmp_path / "a.jsonl"], tmp_path / "out", config(tokenizer_path, "id"))
    rows = recorded(tmp_path / "out/a")

    assert [(row["byte"], row["id"]) for row in rows] == [(0, None), (14, "1"), (14, None)]


@pytest.mark.parametrize("keep", ["row", "url,URL", "Input"])
def test_names_that_are_taken_are_refused(keep: str, tokenizer_path: Path) -> None:
    with pytest.raises(ConfigError, match="the fields to keep are"):
        config(tokenizer_path, keep)


def test_keeping_fields_needs_the_file(
    tokenizer_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--output", str(tmp_path), "--tokenizer", str(tokenizer_path)]

    assert main(["tokenize", "x", *words, "--keep", "url", "--no-docs"]) == 1
    assert "--keep records fields in PREFIX.docs.parquet" in capsys.readouterr().err


def test_shards_without_the_fields_are_made_again_and_others_stay(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """An earlier release wrote no such file, and its shards stay as they are."""
    text, output = write_jsonl("text/a.jsonl", ["one"]), tmp_path / "out"
    prefix, docs = output / "a", output / "a.docs.parquet"

    def made(keep: str = "", **more: Any) -> int:
        tokenize([text], output, config(tokenizer_path, keep, **more))
        return Path(f"{prefix}.idx").stat().st_ino

    first = made(has_docs=False)
    assert not docs.exists()
    assert made() == first
    assert not docs.exists()
    second = made("url,id")
    assert second != first
    assert recorded(prefix)[0]["url"] is None
    assert made("id") == made() == made(has_docs=False) == second
    docs.unlink()
    assert made() == second
    assert made("url") != second


def test_a_field_that_no_document_has_is_reported(
    write_jsonl: WriteJsonl,
    tokenizer_path: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = write_jsonl("text/a.jsonl", ["one"])

    tokenize([text], tmp_path / "out", config(tokenizer_path, "text,ulr"))

    assert "no document has the field 'ulr' (--keep)" in caplog.text
    assert "'text'" not in caplog.text


def test_the_file_is_no_input_and_goes_with_its_shard(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Its name is one of an input, and the output may be in a folder of inputs."""
    text = write_jsonl("text/a.jsonl", ["one"])
    write_jsonl("text/b.jsonl", ["two"])
    output, settings = text.parent, config(tokenizer_path)

    tokenize([output], output, settings)
    again = tokenize([output], output, settings)
    text.unlink()
    tokenize([output], output, replace(settings, prune=True))

    assert len(again) == 2
    assert sorted(path.name for path in output.glob("*.docs.parquet")) == ["b.docs.parquet"]


def test_a_file_of_another_program_is_not_replaced(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    text = write_jsonl("text/a.jsonl", ["one"])
    other = text.with_name("a.docs.parquet")
    write_parquet(other)
    content = other.read_bytes()

    with pytest.raises(ConfigError, match=r"a\.docs\.parquet: exists already"):
        tokenize([text], text.parent, config(tokenizer_path))
    assert other.read_bytes() == content


def test_merging_joins_the_sources_and_leaves_unknown_ones_empty(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "out/web", tmp_path / "merged"
    for name, keep in (("a", "text"), ("c", "id")):
        text = write_jsonl(f"{name}.jsonl", [name, name])
        tokenize([text], folder, config(tokenizer_path, keep))
    tokenize([write_jsonl("b.jsonl", ["b"])], folder, config(tokenizer_path, has_docs=False))

    merge([tmp_path / "out"], output, target_tokens=1e9)
    rows = recorded(output / "web/00000")

    inputs = [row["input"] and Path(row["input"]).name for row in rows]
    assert inputs == ["a.jsonl", "a.jsonl", None, "c.jsonl", "c.jsonl"]
    assert [row["text"] for row in rows] == ["a", "a", None, None, None]
    inode = os.stat(output / "web/00000.docs.parquet").st_ino
    merge([tmp_path / "out"], output, target_tokens=1e9)
    assert os.stat(output / "web/00000.docs.parquet").st_ino == inode


def test_merging_nothing_recorded_records_nothing(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out/web"
    tokenize([write_jsonl("b.jsonl", ["b"])], folder, config(tokenizer_path, has_docs=False))

    merge([folder], tmp_path / "merged", target_tokens=1e9)

    assert not list((tmp_path / "merged").rglob("*.docs.parquet"))

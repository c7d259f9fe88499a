"""Documents found by their sources, in the shards of a run."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blendtitan.cli import main
from blendtitan.document_sources import SourceWriter, one_input, source_rows
from blendtitan.runs.open import open_run
from blendtitan.storage.list_forms import find_shards
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.removed_documents import read_removed_documents
from tests.runs.conftest import WriteRun

pytest.importorskip("duckdb")


def record_sources(prefix: Path) -> None:
    """Even documents come from a.org, odd ones from b.net."""
    count = ShardIndex.open(prefix).num_documents
    hosts = ["a.org", "b.net"] * count
    urls = pa.array([f"https://{hosts[number]}/{number}" for number in range(count)])
    rows = source_rows(
        one_input(f"{prefix.name}.jsonl", count),
        {"url": urls},
        unit="byte",
        places=pa.array(range(count), pa.int64()),
    )
    with open(f"{prefix}.docs.parquet", "wb") as file, SourceWriter(file, ["url"]) as writer:
        writer.write(rows)


@pytest.fixture
def run_path(write_run: WriteRun, tmp_path: Path) -> Path:
    """A run of two corpora of about twenty documents, the first of them in the train split."""
    path = write_run({"web": (1.0, [100]), "code": (1.0, [100])})
    for prefix in find_shards(tmp_path):
        record_sources(prefix)
    return path


def found(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    assert main(["find", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_documents_are_found_by_any_of_their_fields(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_url = found(capsys, tmp_path, "--where", "url LIKE '%a.org%' AND byte < 4 -- comment")
    by_place = found(capsys, tmp_path, "--where", "shard LIKE '%web%' AND document IN (3, 5)")

    assert [entry["document"] for entry in by_url["documents"]] == [0, 2, 0, 2]
    assert [entry["source"]["url"] for entry in by_place["documents"]] == [
        *("https://b.net/3", "https://b.net/5")
    ]


def test_the_steps_that_read_a_document_are_those_that_explain_shows(
    run_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = found(capsys, "--run", run_path, "--where", "document % 6 = 0 OR document > 15")

    outside = 0
    for entry in report["documents"]:
        document = f"{entry['shard']}:{entry['document']}"
        if main(["explain", str(run_path), "--document", document, "--json"]):
            outside += 1
            assert "is not in the train split" in capsys.readouterr().err
            assert entry["steps_read"] is None
            continue
        readings = json.loads(capsys.readouterr().out)["readings"]
        assert entry["steps_to_come"] == sorted({reading["step"] for reading in readings})
        assert entry["steps_to_come"]
        assert entry["steps_read"] == []
    assert outside >= 2


def test_the_list_is_one_of_removed_documents(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them are listed, however many are shown."""
    output = tmp_path / "removed.txt"
    counts = [ShardIndex.open(prefix).num_documents for prefix in find_shards(tmp_path)]

    words = ["--run", run_path, "--where", "url LIKE '%b.net%'", "--output", output, "--limit", "1"]
    report = found(capsys, *words)
    contents = open_run(run_path).contents
    assert contents is not None
    removed = read_removed_documents(output, contents.catalog)

    odd = [number for count in counts for number in range(1, count, 2)]
    assert (report["found"], len(report["documents"])) == (len(odd), 1)
    assert sorted(removed.documents.tolist()) == sorted(odd)
    assert sorted(set(removed.shards.tolist())) == [0, 1]


@pytest.mark.parametrize("key", ["url", "input"])
def test_documents_with_the_values_of_a_file_are_found(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    """As after a request to remove some URLs; those of no document are named."""
    names = {prefix.name for prefix in find_shards(tmp_path)}
    values = ["https://a.org/2", "https://b.net/3"] if key == "url" else [f"{min(names)}.jsonl"]
    (tmp_path / "values.txt").write_text("\r\n".join([*values, "", 'none "x" #1', "other"]))
    words = [tmp_path, "--values", tmp_path / "values.txt", "--key", key]

    assert main(["find", *map(str, words), "--json"]) == 0
    shown = capsys.readouterr()
    documents = json.loads(shown.out)["documents"]
    expected = (
        {2, 3}
        if key == "url"
        else {*range(ShardIndex.open(find_shards(tmp_path)[0]).num_documents)}
    )
    assert {entry["document"] for entry in documents} == expected
    assert f'not found in any document (2 of {len(values) + 2}): none "x" #1, other' in shown.err
    output = tmp_path / "removed.txt"
    assert main(["find", *map(str, [*words, "--run", run_path, "--output", output])]) == 0
    contents = open_run(run_path).contents
    assert contents is not None
    assert set(read_removed_documents(output, contents.catalog).documents.tolist()) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--values", "v.txt"], "there is no column 'id' of text, found input, url"),
        (["--values", "v.txt", "--key", "row"], "there is no column 'row' of text"),
        (["--values", "none.txt", "--key", "url"], "cannot be read as UTF-8 text"),
        (["--values", "empty.txt", "--key", "url"], "is empty, expected a value of 'url'"),
        (["--where", "true", "--key", "url"], "--key names the column of --values"),
    ],
)
def test_values_that_cannot_be_searched_are_refused(
    run_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v.txt").write_text("a\n")
    (tmp_path / "empty.txt").write_text("\n")

    assert main(["find", str(tmp_path), *words]) == 1
    assert message in capsys.readouterr().err


def test_only_an_earlier_list_is_replaced(
    run_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    output = tmp_path / "removed.txt"
    words = ["find", str(tmp_path), "--where", "document = 1", "--output", str(output)]

    assert (main(words), main(words)) == (0, 0)
    assert "replaces" not in caplog.text
    words[3] = "document = 0"
    assert main(words) == 0
    assert "replaces the list of another search (--where 'document = 1')" in caplog.text
    output.write_text("web/0 1\n")
    assert main(words) == 1
    assert "exists already, and was not written by this command" in capsys.readouterr().err
    assert output.read_text() == "web/0 1\n"


def test_a_wrong_condition_names_the_columns_and_keeps_the_list(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "removed.txt"

    assert main(["find", str(tmp_path), "--where", "ulr = 'a'", "--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert re.search(r'--where "ulr = .a."|--where .*ulr', error)
    assert "shard, document, input, row, byte, url" in error
    assert not output.exists()


def test_shards_without_sources_are_named(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = find_shards(tmp_path)
    Path(f"{first}.docs.parquet").unlink()

    assert found(capsys, tmp_path, "--where", "document = 1")["found"] == 1
    Path(f"{second}.docs.parquet").unlink()
    assert main(["find", str(tmp_path), "--where", "true"]) == 1
    assert "none of 2 shards has PREFIX.docs.parquet" in capsys.readouterr().err


def test_nothing_to_search_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find", "--where", "true"]) == 1
    assert "nothing to search" in capsys.readouterr().err


def test_explain_shows_the_source_of_each_document(
    run_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(run_path), "--slot", "0"]) == 0
    shown = capsys.readouterr().out
    main(["explain", str(run_path), "--slot", "0", "--json"])
    [sample] = json.loads(capsys.readouterr().out)["samples"]

    for part in sample["parts"]:
        for document in part["documents"]:
            number, source = document["document"], document["source"]
            assert source["byte"] == number
            assert f'      from {source["input"]}, byte {number}; url "{source["url"]}"' in shown

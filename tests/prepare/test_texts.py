"""Every format gives its texts, and reports unusable ones."""

import bz2
import gzip
import json
import lzma
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from blendtitan.errors import InputError
from blendtitan.prepare.input_file import DEFAULT_OPTIONS, InputFile, ReadOptions
from blendtitan.prepare.streams import BadText, TextRange, zstd
from blendtitan.prepare.texts import is_cut, read_range
from tests.prepare.conftest import strings

LINES = b'{"text": "one"}\n{"text": "two"}\n'
TABLE = pa.table({"id": [1, 2], "text": ["one", "two"]})

COMPRESSED = {
    "a.jsonl.gz": gzip.compress(LINES, mtime=0),
    "a.jsonl.zst": zstd.compress(LINES),
    "a.jsonl.zstd": zstd.compress(LINES[:9]) + zstd.compress(LINES[9:]),
    "a.jsonl.xz": lzma.compress(LINES[:9]) + b"\0\0\0\0" + lzma.compress(LINES[9:]),
    "a.jsonl.bz2": bz2.compress(LINES[:9]) + bz2.compress(LINES[9:]),
}


def read(path: Path, *, key: str = "text", options: ReadOptions = DEFAULT_OPTIONS) -> list:
    file = InputFile.of(path)
    texts = read_range(TextRange(file, 0, file.num_bytes, key, options))
    return strings(texts)


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *COMPRESSED.items(),
        ("a.ndjson", LINES),
        ("A.JSONL", LINES),
        ("A.JSONL.GZ", gzip.compress(LINES, mtime=0)),
        ("a.json", LINES),
        ("array.json", '[{"text": "one"}, {"text": "two"}]'),
        ("pretty array.json", json.dumps([{"text": "one"}, {"text": "two"}], indent=2)),
        ("pretty.json", '{\n  "text": "one"\n}\n{\n  "text": "two"\n}\n'),
        ("mark.json", b'\xef\xbb\xbf[{"text": "one"},\n {"text": "two", "x": NaN}]\n'),
        ("array.json.bz2", bz2.compress(b'[{"text": "one"}, {"text": "two"}]')),
        ("a.csv", 'id,text\r\n1,one\r\n"2","two"\r\n'),
        ("a.tsv.xz", lzma.compress(b"id\ttext\n1\tone\n2\ttwo\n")),
    ],
)
def test_every_format_gives_its_texts(tmp_path: Path, name: str, content: bytes | str) -> None:
    assert read(written(tmp_path / name, content)) == ["one", "two"]


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("missing", [1, 3, 7])
def test_a_compressed_file_that_ends_too_early_is_an_error(
    tmp_path: Path, name: str, missing: int
) -> None:
    path = written(tmp_path / name, COMPRESSED[name][:-missing])

    with pytest.raises(InputError, match=r"the compressed data cannot be read"):
        read(path)


@pytest.mark.parametrize("num_bytes", [1, 3, 5, 8, 11])
def test_errors_of_truncated_zstd_do_not_mention_buffers(tmp_path: Path, num_bytes: int) -> None:
    for level in (1, 19):
        whole = zstd.compress(LINES * 1000 + bytes(range(256)) * 9, level)
        path = written(tmp_path / "a.jsonl.zst", whole[:-num_bytes])

        with pytest.raises(InputError, match="ends inside a member"):
            read(path)


def test_a_few_bytes_of_zstd_never_become_one_large_block(tmp_path: Path) -> None:
    """Sixteen kilobytes can hold gigabytes of newlines."""
    path = written(tmp_path / "a.jsonl.zst", zstd.compress(b"\n" * (1 << 26) + LINES))

    assert read(path, options=ReadOptions(max_document_bytes=1000)) == ["one", "two"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt", "a.jsonl.zst"])
def test_memory_is_bounded_however_long_a_document_is(tmp_path: Path, name: str) -> None:
    """A line of 250 MB took 13 GB and ended the command."""
    content = b'{"text": "%s"}\n' % (b"x" * (1 << 25))
    path = written(tmp_path / name, zstd.compress(content) if "zst" in name else content)
    tracemalloc.start()
    try:
        [rejected] = read(path, options=ReadOptions(max_document_bytes=1 << 16))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert isinstance(rejected, BadText)
    assert peak < 1 << 22


@pytest.mark.parametrize(
    ("txt", "texts"), [("file", ["one\r\n\n two\n"]), ("line", ["one", " two"])]
)
def test_a_text_file_is_one_document_or_one_for_each_line(
    tmp_path: Path, txt: str, texts: list[str]
) -> None:
    path = written(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\n\n two\n")
    options = ReadOptions(txt=txt)  # pyright: ignore[reportArgumentType]

    assert read(path, options=options) == texts
    assert is_cut(InputFile.of(path), options) == (txt == "line")
    assert read(written(path, b" \n"), options=options) == []


@pytest.mark.parametrize(
    ("name", "content", "place", "reason"),
    [
        ("a.jsonl", '{"text": "%s"}\n' % ("x" * 90), 0, "the line has 102 bytes, more than the 64"),
        ("a.json", '[{"text": "%s"}]' % ("x" * 90), 1, "the JSON value has 102 bytes"),
        ("a.txt", "x" * 90, 0, "the file has 90 bytes, more than the 64"),
        ("a.parquet", None, 0, "the text has 90 bytes, more than the 64"),
        ("a.txt", b"\xff", 0, "not valid UTF-8"),
        ("a.csv", b"text\n\xff\n", 0, "'text' is not valid UTF-8"),
        ("a.csv", "id,text\n1,one,more\n", 0, "found 3 fields, expected 2"),
        ("a.csv", 'text\n"one"x\n', 0, "not a row of CSV"),
        ("a.json", '[\n "one"]', 3, "found JSON of type str, expected an object"),
    ],
)
def test_a_text_that_cannot_be_used_is_reported_with_place_and_reason(
    tmp_path: Path, name: str, content: bytes | str | None, place: int, reason: str
) -> None:
    path = tmp_path / name
    if content is None:
        pq.write_table(pa.table({"text": ["x" * 90]}), path)
        content = path.read_bytes()
    options = ReadOptions(max_document_bytes=64)

    stop = 1 if name.endswith("parquet") else len(content)
    file = InputFile.of(written(path, content))
    [bad] = read_range(TextRange(file, 0, stop, options=options))

    assert isinstance(bad, BadText)
    assert bad.place == place
    assert reason in bad.reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"text": "one"}, {"text": ', r"a\.json: the content ends inside the JSON"),
        ("a.json", '[{"text": "one"},', r"starts at byte 0"),
        ("a.csv", "id,txt\n1,one\n", r"there is no column 'text', found id, txt"),
        ("a.csv", 'text\n"%s\n' % ("x\n" * 900), "or its quotes are not closed"),
        ("a.csv", "text\n%s\n" % ("x" * 900), "the line has 900 bytes, more than the 640"),
        ("a.arrow", b"no arrow", r"a\.arrow: cannot be read as Arrow data"),
        ("a.feather", b"FEA1....", r"is a Feather file of version 1"),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_is_an_error(
    tmp_path: Path, name: str, content: bytes | str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(written(tmp_path / name, content), options=ReadOptions(max_document_bytes=640))


@pytest.mark.parametrize("kind", ["file", "stream", "feather"])
def test_arrow_files_and_streams_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.arrow"
    if kind == "feather":
        feather.write_feather(TABLE, path)
    else:
        new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with new(path, TABLE.schema) as writer:
            writer.write_table(TABLE, max_chunksize=1)

    assert read(path) == ["one", "two"]


@pytest.mark.parametrize(
    "texts",
    [
        pa.array(["one", None, "two"]).dictionary_encode(),
        pa.array(["one", None, "two"], pa.string_view()),
        pa.array(["one", None, "two"], pa.large_string()),
        pa.array([b"one", b"\xff", b"two"], pa.binary()),
        pa.array([b"one", b"\xff", b"two"], pa.binary()).dictionary_encode(),
    ],
    ids=["dictionary", "string_view", "large_string", "binary", "binary dictionary"],
)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_columns_of_every_type_that_holds_texts_are_read(
    tmp_path: Path, texts: pa.Array, suffix: str
) -> None:
    path, table = tmp_path / f"a.{suffix}", pa.table({"text": texts})
    if suffix == "parquet":
        pq.write_table(table, path)
        file = InputFile.of(path)
        found = strings(read_range(TextRange(file, 0, 1)))
    else:
        feather.write_feather(table, path)
        found = read(path)

    assert [found[0], found[2]] == ["one", "two"]
    assert isinstance(found[1], BadText)


@pytest.mark.parametrize(
    ("columns", "texts"),
    [
        ({"content": [{"text": "one"}, None]}, "one"),
        ({"content": [{"text": "other"}, None], "content.text": ["one", None]}, "one"),
    ],
)
def test_a_column_may_be_nested_and_a_name_with_a_dot_takes_precedence(
    tmp_path: Path, columns: dict[str, list[object]], texts: str
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1, 2]} | columns), path)
    file = InputFile.of(path)

    found = read_range(TextRange(file, 0, 1, "content.text"))

    assert strings(found) == [texts, BadText("row", 1, "'content.text' is null, expected a string")]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_nested_column_is_read_in_a_process_that_imported_nothing_else(
    tmp_path: Path, suffix: str
) -> None:
    path, table = tmp_path / f"a.{suffix}", pa.table({"content": [{"text": "one"}]})
    write = pq.write_table if suffix == "parquet" else feather.write_feather
    write(table, path)
    script = """
import sys
from blendtitan.prepare.input_file import InputFile
from blendtitan.prepare.streams import TextRange
from blendtitan.prepare.texts import read_range

file = InputFile.of(sys.argv[1])
stop = 1 if sys.argv[1].endswith("parquet") else file.num_bytes
print(*(text for _, text, _ in read_range(TextRange(file, 0, stop, "content.text"))))
"""

    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("one\n", "")


@pytest.mark.parametrize("key", ["text", "content.text"])
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_name_that_two_columns_have_is_an_error(tmp_path: Path, suffix: str, key: str) -> None:
    texts = pa.array(["one"])
    columns = [texts, texts, pa.StructArray.from_arrays([texts, texts], ["text", "text"])]
    schema = pa.schema([(name, pa.string()) for name in ("text", "text")])
    table = pa.Table.from_arrays(
        columns, schema=schema.append(pa.field("content", columns[2].type))
    )
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    file = InputFile.of(path)

    with pytest.raises(InputError, match="there are 2 columns 'text', expected"):
        list(read_range(TextRange(file, 0, 1, key)))


def test_a_name_that_two_columns_of_csv_have_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,id,text,id\none,1,two,2\n")

    with pytest.raises(InputError, match=r"a\.csv: there are 2 columns 'text'"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,text\r1,one\r2,two\r", "the first line is not a row of CSV"),
        (b'"id"x,text\n1,one\n', "the first line is not a row of CSV"),
        (b'id,"text\n1,one\n', "the first line is not a row of CSV"),
        ("id,text\n1,one\n".encode("utf-16"), "the first line is not valid UTF-8"),
        (b"id,te\xfft\n1,one\n", "the first line is not valid UTF-8"),
    ],
    ids=["CR only", "bad quotes", "open quotes", "UTF-16", "Latin-1"],
)
def test_a_first_line_that_names_no_columns_is_an_error(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = written(tmp_path / "a.csv", content)

    with pytest.raises(InputError, match=f"a.csv: {message}"):
        read(path)


def test_only_json_files_with_lines_are_cut(tmp_path: Path) -> None:
    for content, expected in ((LINES, True), (b"[" + LINES[:15] + b"]", False)):
        file = InputFile.of(written(tmp_path / "a.json", content))

        assert is_cut(file, DEFAULT_OPTIONS) == expected

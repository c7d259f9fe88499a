from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendtitan.errors import InputError
from blendtitan.prepare.columns import read_parquet, row_group_runs
from blendtitan.prepare.input_file import InputFile
from blendtitan.prepare.streams import BadText, TextRange
from tests.prepare.conftest import strings


def written(path: Path, texts: pa.Array | list[str | None], rows_per_group: int = 2) -> Path:
    table = pa.table({"id": range(len(texts)), "text": texts})
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path


def read(path: Path, start: int, stop: int, key: str = "text") -> list[str | BadText]:
    return strings(read_parquet(TextRange(InputFile.of(path), start, stop, key)))


@pytest.mark.parametrize("run_bytes", [1, 150, 10**9])
def test_every_row_group_is_read_once(tmp_path: Path, run_bytes: int) -> None:
    texts = [f"text {number}" for number in range(9)]
    path = written(tmp_path / "a.parquet", texts)

    runs = row_group_runs(InputFile.of(path), run_bytes)

    assert [text for start, stop, _ in runs for text in read(path, start, stop)] == texts


def test_runs_are_as_long_as_they_may_be(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", ["text"] * 9)

    assert [(start, stop) for start, stop, _ in row_group_runs(InputFile.of(path), 1)] == [
        *((0, 1), (1, 2), (2, 3), (3, 4), (4, 5))
    ]
    assert [(start, stop) for start, stop, _ in row_group_runs(InputFile.of(path), 10**9)] == [
        (0, 5)
    ]


def test_a_bad_text_is_reported_with_its_row_and_its_neighbours_are_read(tmp_path: Path) -> None:
    """Arrow does not check UTF-8 while reading."""
    content = pa.array([b"one", b"", None, b"\xff", b"\xed\xa0\x80", b"two"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 6, content.buffers())
    path = written(tmp_path / "a.parquet", texts)

    one, *bad, two = [*read(path, 0, 1), *read(path, 1, 3)]

    assert (one, two) == ("one", "two")
    assert [(text.unit, text.place) for text in bad if isinstance(text, BadText)] == [
        *(("row", 1), ("row", 2), ("row", 3), ("row", 4))
    ]
    reasons = ["empty string", "null", "not valid UTF-8", "not valid UTF-8"]
    assert all(reason in str(text) for reason, text in zip(reasons, bad, strict=True))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("txt", "there is no column 'txt', found id, text"),
        ("id", "column 'id' is of type int64, expected strings"),
    ],
)
def test_a_column_without_texts_is_an_error(tmp_path: Path, key: str, message: str) -> None:
    path = written(tmp_path / "a.parquet", ["one"])

    with pytest.raises(InputError, match=message):
        read(path, 0, 1, key)


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", ["one" * 1000])
    path.write_bytes(path.read_bytes()[:-5])

    with pytest.raises(InputError, match=r"a\.parquet: cannot be read as a Parquet file"):
        row_group_runs(InputFile.of(path), 1)

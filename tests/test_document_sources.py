"""Files of the sources of documents: their row groups, and damage."""

import io
import random
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendtitan import document_sources
from blendtitan.document_sources import (
    SourceWriter,
    one_input,
    open_sources,
    recorded_fields,
    source_rows,
)
from blendtitan.errors import CorruptShardError


def rows(first: int, count: int, location: str = "a.jsonl") -> pa.Table:
    numbers = range(first, first + count)
    urls = pa.array([f"https://example.org/{number}" for number in numbers])
    places = pa.array(numbers, pa.int64())
    return source_rows(one_input(location, count), {"url": urls}, unit="byte", places=places)


def written(*tables: pa.Table) -> bytes:
    file = io.BytesIO()
    with SourceWriter(file, ["url"]) as writer:
        for table in tables:
            writer.write(table)
    return file.getvalue()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A shard of 1000 documents of two inputs."""
    content = written(rows(0, 500), rows(500, 500, "b.jsonl"))
    (tmp_path / "a.docs.parquet").write_bytes(content)
    return tmp_path / "a"


@pytest.mark.parametrize(("name", "limit"), [("_GROUP_ROWS", 300), ("_GROUP_BYTES", 7000)])
def test_equal_rows_give_equal_bytes_however_they_are_divided(
    name: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed command may have other jobs, and its file must be the same."""
    monkeypatch.setattr(document_sources, name, limit)
    whole = written(rows(0, 1000))

    for sizes in ([1] * 1000, [299, 1, 700], [301, 699], [7] * 142 + [6]):
        firsts = [sum(sizes[:at]) for at in range(len(sizes))]
        assert written(*map(rows, firsts, sizes)) == whole
    groups = pq.ParquetFile(io.BytesIO(whole)).metadata.num_row_groups
    assert groups == 4


@pytest.mark.parametrize("group_rows", [1 << 17, 7])
def test_documents_are_found_in_any_row_group(
    group_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_sources, "_GROUP_ROWS", group_rows)
    content = written(rows(0, 500), rows(500, 500, "b.jsonl"))
    (tmp_path / "a.docs.parquet").write_bytes(content)

    with open_sources(tmp_path / "a") as sources:
        assert sources is not None
        found = sources.of_documents([0, 6, 7, 499, 500, 999])

    assert [source.byte for source in found] == [0, 6, 7, 499, 500, 999]
    assert [source.input for source in found] == ["a.jsonl"] * 4 + ["b.jsonl"] * 2
    assert str(found[-1]) == 'b.jsonl, byte 999; url "https://example.org/999"'


def test_memory_does_not_grow_with_the_number_of_documents() -> None:
    class Nowhere(io.BytesIO):
        def write(self, data: bytes) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
            return len(data)

    def peak(count: int) -> int:
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        most = 0
        with SourceWriter(Nowhere()) as writer:
            places = pa.array(range(1 << 16), pa.int64())
            table = source_rows(one_input("a.jsonl", 1 << 16), {}, unit="byte", places=places)
            for _ in range(count):
                writer.write(table)
                most = max(most, pa.total_allocated_bytes() - before)
        return most + tracemalloc.get_traced_memory()[1]

    assert peak(256) < 1.2 * peak(16) + 1_000_000


def test_a_file_of_another_shard_is_an_error(prefix: Path) -> None:
    assert recorded_fields(prefix, 1000) == ("url",)
    with pytest.raises(CorruptShardError, match="describes 1,000 documents, but the shard"):
        recorded_fields(prefix, 999)


def test_a_shard_without_the_file_is_no_error(tmp_path: Path) -> None:
    assert recorded_fields(tmp_path / "a", 5) is None


def test_damage_is_an_error_or_changes_nothing(prefix: Path) -> None:
    path = Path(f"{prefix}.docs.parquet")
    content = path.read_bytes()
    expected = pq.read_table(path)
    # The footer has no checksum.
    num_bytes = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    generator, num_errors = random.Random(1), 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[generator.randrange(num_bytes)] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            with open_sources(prefix) as sources:
                assert sources is not None
                found = pa.concat_tables(sources.groups()).unify_dictionaries()
        except CorruptShardError:
            num_errors += 1
        else:
            assert found.equals(expected.cast(found.schema))

    assert num_errors > 200


@pytest.mark.parametrize("content", [b"", b"PAR1", bytes(1000)])
def test_what_is_no_such_file_is_an_error(content: bytes, prefix: Path) -> None:
    Path(f"{prefix}.docs.parquet").write_bytes(content)

    with pytest.raises(CorruptShardError, match=r"a\.docs\.parquet: cannot be read as"):
        recorded_fields(prefix, 1000)


def test_a_file_of_other_columns_is_an_error(prefix: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), f"{prefix}.docs.parquet")

    with pytest.raises(CorruptShardError, match="its columns are text"):
        recorded_fields(prefix, 1)

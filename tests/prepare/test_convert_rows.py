"""Rows of ids become documents of shards as they are, or nothing is written.

``tests/data/token_rows`` holds files that the real libraries wrote.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendtitan.cli import main
from blendtitan.document_sources import open_sources
from blendtitan.errors import BlendTitanError, ConfigError, InputError, ShardError
from blendtitan.prepare import convert_rows as convert_rows_module
from blendtitan.prepare import item_files, token_rows
from blendtitan.prepare.convert_rows import (
    ConvertedFile,
    check_converted,
    conversion_notes,
    convert_rows,
)
from blendtitan.prepare.row_files import find_row_files
from blendtitan.prepare.token_rows import RowSettings
from blendtitan.shards.verify import Expected, verify
from blendtitan.storage.reader import ShardIndex, file_signature
from blendtitan.storage.records import read_ends

DATA = Path(__file__).parents[1] / "data/token_rows"
EOD = 2
DOCUMENTS = [[*range(3 + 7 * n, 4 + 7 * n + n % 5), EOD] for n in range(12)]
CUT_TO_4 = [[*(ids * 4)[:4], EOD][: 4 + ((ids * 4)[3] != EOD)] for ids in DOCUMENTS]


def converted(
    inputs: Sequence[Path], output: Path, *, overwrite: bool = False, **settings: Any
) -> list[ConvertedFile]:
    known = RowSettings(**{"eod_id": EOD} | settings)
    files, others, _ = find_row_files(inputs, known)
    assert not others
    found = list(convert_rows(files, output, known, overwrite=overwrite))
    check_converted(found)
    return found


def documents(*prefixes: Path) -> list[list[int]]:
    found: list[list[int]] = []
    for prefix in prefixes:
        opened = ShardIndex.open(prefix)
        tokens = np.fromfile(f"{prefix}.bin", opened.dtype)
        starts = opened.document_starts(0, opened.num_documents).tolist()
        found += [tokens[a:b].tolist() for a, b in pairwise(starts)]
    return found


def write_parquet(
    path: Path, rows: Sequence[Any], kind: pa.DataType | None = None, **more: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = pa.array(rows, kind or pa.list_(pa.int32()))
    pq.write_table(pa.table({"input_ids": ids} | more), path)
    return path


# Formats


@pytest.mark.parametrize(
    "name",
    [
        *("mds_type", "mds_zstd", "mds_bytes", "mds_shape", "litdata_tokens"),
        *("litdata_tokens_torch", "litdata_dict", "litdata_lists", "litdata_zstd_chunk"),
        *("litdata_zstd_batch", "litdata_zstd_sample", "litdata_old", "litdata_old_zstd"),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 40, 1 << 24])
def test_rows_of_the_real_libraries_become_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, block_bytes: int
) -> None:
    """In the order of their index, however many are read at once."""
    monkeypatch.setattr(item_files, "_BLOCK_BYTES", block_bytes)
    found = converted([DATA / name], tmp_path, dtype="int64")

    expected = CUT_TO_4 if name == "mds_shape" else DOCUMENTS
    assert documents(*(file.prefix for file in found)) == expected
    assert len(found) > 1, "several files, so that their order matters"
    assert [shard.problems for shard in verify([tmp_path], Expected(eod_id=EOD))] == [[]] * len(
        found
    )


KINDS = {
    "int32": pa.list_(pa.int32()),
    "int64": pa.large_list(pa.int64()),
    "uint16": pa.list_(pa.uint16()),
    "view": pa.list_view(pa.int16()),
}


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        *((kind, form) for kind in KINDS for form in ("file", "stream")),
        *((kind, "parquet") for kind in KINDS if kind != "view"),  # Parquet has no views
    ],
)
def test_rows_of_parquet_and_arrow_become_documents(tmp_path: Path, kind: str, form: str) -> None:
    table = pa.table({"text": ["x"] * 12, "input_ids": pa.array(DOCUMENTS, KINDS[kind])})
    path = tmp_path / ("web.parquet" if form == "parquet" else "web.arrow")
    if form == "parquet":
        pq.write_table(table, path, row_group_size=5)
    else:
        new = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
        with new(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)

    (found,) = converted([path], tmp_path / "new")

    assert documents(tmp_path / "new/web") == DOCUMENTS
    assert (found.num_documents, found.num_tokens) == (12, sum(map(len, DOCUMENTS)))


def test_rows_of_a_fixed_length_become_documents(tmp_path: Path) -> None:
    rows = [[1, 5, EOD], [6, 7, EOD]]
    path = write_parquet(tmp_path / "a.parquet", rows, pa.list_(pa.int32(), 3))
    converted([path], tmp_path)

    assert documents(tmp_path / "a") == rows


def test_a_dataset_on_disk_is_read_without_its_caches(tmp_path: Path) -> None:
    """``map`` writes its result into the folder of the dataset that it was loaded from."""
    dataset = datasets.Dataset.from_dict({"input_ids": DOCUMENTS})
    dataset.save_to_disk(tmp_path / "old/web", num_shards=2)
    (tmp_path / "old/web/cache-1.arrow").write_bytes(
        (tmp_path / "old/web/data-00000-of-00002.arrow").read_bytes()
    )
    found = converted([tmp_path / "old"], tmp_path / "new")

    names = [str(file.prefix.relative_to(tmp_path / "new")) for file in found]
    assert names == ["web/data-00000-of-00002", "web/data-00001-of-00002"]
    assert documents(*(file.prefix for file in found)) == DOCUMENTS


def test_a_merged_index_of_mds_names_files_in_subfolders(tmp_path: Path) -> None:
    shutil.copytree(DATA / "mds_type", tmp_path / "old/part")
    index = json.loads((tmp_path / "old/part/index.json").read_text())
    for shard in index["shards"]:
        shard["raw_data"]["basename"] = f"part/{shard['raw_data']['basename']}"
    (tmp_path / "old/index.json").write_text(json.dumps(index))
    found = converted([tmp_path / "old"], tmp_path / "new")

    assert found[0].prefix == tmp_path / "new/part/shard.00000"
    assert documents(*(file.prefix for file in found)) == DOCUMENTS


# Documents


def test_eod_is_appended_where_it_is_missing_and_that_is_reported(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [[5], [6, EOD], []])
    (found,) = converted([path], tmp_path)

    assert documents(tmp_path / "a") == [[5, EOD], [6, EOD], [EOD]]
    assert [*conversion_notes([found])] == [
        "kept as documents without text: 1 row without ids",
        "EOD was appended to 2 documents that did not end in it",
    ]
    signature = file_signature(str(found.prefix))
    assert signature is not None
    ends = read_ends(str(found.prefix), signature, EOD)
    assert ends is not None
    assert ends.num_eod == 3


def test_without_an_eod_ids_stay_as_they_are(tmp_path: Path) -> None:
    rows = [[5], [6, EOD], [], [7, 8]]
    converted([write_parquet(tmp_path / "a.parquet", rows)], tmp_path, eod_id=None)

    assert documents(tmp_path / "a") == rows
    assert not list(tmp_path.glob("*.ends.json"))


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_packed_rows_are_cut_after_each_eod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    """Each document has the row in which it begins as its source."""
    monkeypatch.setattr(token_rows, "_BATCH_ROWS", batch_rows)
    rows = [[5, 6, EOD, 7], [8, 9, 9, 9], [], [9, EOD, EOD, 3]]
    path = write_parquet(tmp_path / "a.parquet", rows, url=["a", "b", None, "d"])
    (found,) = converted([path], tmp_path, is_packed=True, keep=("url",))

    assert documents(tmp_path / "a") == [[5, 6, EOD], [7, 8, 9, 9, 9, 9, EOD], [EOD], [3, EOD]]
    assert [*conversion_notes([found])] == [
        "EOD was appended to 1 document cut off at the end of a file"
    ]
    with open_sources(tmp_path / "a") as sources:
        assert sources is not None
        read = sources.of_documents(range(4))
    assert [(source.row, source.kept["url"]) for source in read] == [
        *((0, "a"), (0, "a"), (3, "d"), (3, "d"))
    ]


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_packed_documents_do_not_depend_on_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    """Compared with a plain loop, on few ids, so that EODs come in all places."""
    monkeypatch.setattr(token_rows, "_BATCH_ROWS", batch_rows)
    generator = np.random.default_rng(batch_rows)
    for number in range(20):
        lens = generator.integers(0, 6, 12)
        rows = [generator.integers(1, 5, count).tolist() for count in lens]
        expected: list[list[int]] = [[]]
        owners: list[int] = []
        for row, ids in enumerate(rows):
            for token in ids:
                owners += [] if expected[-1] else [row]
                expected[-1].append(token)
                expected += [[]] if token == EOD else []
        expected[-1] += [EOD] if expected[-1] else []
        path = write_parquet(tmp_path / f"{number}.parquet", rows)
        converted([path], tmp_path, is_packed=True)

        assert documents(tmp_path / str(number)) == [each for each in expected if each]
        with open_sources(tmp_path / str(number)) as sources:
            assert sources is not None
            assert [source.row for source in sources.of_documents(range(len(owners)))] == owners


def test_padding_is_left_out(tmp_path: Path) -> None:
    """Tokenizers that pad write an attention mask; GPT-2's padding is often its EOS."""
    rows, mask = [[5, EOD, EOD, EOD], [EOD, EOD, 6, EOD]], [[1, 1, 0, 0], [0, 0, 1, 1]]
    path = write_parquet(tmp_path / "a.parquet", rows, attention_mask=pa.array(mask))
    (found,) = converted([path], tmp_path)

    assert documents(tmp_path / "a") == [[5, EOD], [6, EOD]]
    assert [*conversion_notes([found])] == [
        "left out as padding, because attention_mask is 0: 4 ids"
    ]


def test_the_source_and_kept_columns_of_each_document_are_recorded(tmp_path: Path) -> None:
    meta = pa.array([{"id": 7, "tags": ["a"]}, None])
    path = write_parquet(tmp_path / "a.parquet", [[5], [6]], url=["x", None], meta=meta)
    converted([path], tmp_path, keep=("url", "meta.id", "meta.tags", "none"))

    with open_sources(tmp_path / "a") as sources:
        assert sources is not None
        first, second = sources.of_documents([0, 1])
    assert (first.input, first.row, second.row) == (str(path), 0, 1)
    assert first.kept == {"url": "x", "meta.id": "7", "meta.tags": '["a"]', "none": None}
    assert set(second.kept.values()) == {None}


def test_a_field_that_no_row_has_is_reported(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [[5], [6]], url=["x", None])
    (found,) = converted([path], tmp_path, eod_id=None, keep=("url", "urls"))

    assert [*conversion_notes([found])] == ["the field urls of --keep is in no row of 1 file"]


def test_packed_rows_without_any_end_are_reported(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [[5], [6]])
    (found,) = converted([path], tmp_path, is_packed=True)

    assert documents(tmp_path / "a") == [[5, 6, EOD]]
    assert [*conversion_notes([found])] == [
        "1 file in which --eod-id does not occur became one document each: check that the id is "
        "right"
    ]


# The type of the ids


@pytest.mark.parametrize(
    ("largest", "settings", "dtype"),
    [
        (65535, {}, "<u2"),
        (65536, {}, "<i4"),
        (5, {"vocab_size": 65536}, "<u2"),
        (5, {"vocab_size": 65537}, "<i4"),
        (5, {"eod_id": 65536}, "<i4"),
    ],
)
@pytest.mark.parametrize("has_statistics", [True, False])
def test_all_shards_have_the_type_of_the_vocabulary_or_the_largest_id(
    tmp_path: Path, largest: int, settings: dict[str, Any], dtype: str, has_statistics: bool
) -> None:
    """``merge`` joins only shards of one type."""
    for name, ids in (("a", [3, EOD]), ("b", [largest, EOD])):
        table = pa.table({"input_ids": pa.array([ids], pa.list_(pa.int64()))})
        pq.write_table(table, tmp_path / f"{name}.parquet", write_statistics=has_statistics)
    converted([tmp_path], tmp_path / "new", **settings)

    assert {ShardIndex.open(tmp_path / "new" / name).dtype for name in "ab"} == {np.dtype(dtype)}


def test_a_batch_has_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_rows, "_BATCH_BYTES", 10_000)
    generator = np.random.default_rng(0)
    rows = generator.integers(3, 60_000, (500, 100)).tolist()
    path = write_parquet(tmp_path / "a.parquet", rows)
    (file,), *_ = find_row_files([path], RowSettings())

    sizes = [batch.tokens.nbytes for batch in file.read()]

    assert sum(sizes) == 500 * 100 * 4
    assert max(sizes) <= 20_000


# Calls that are repeated


def test_a_repeated_call_keeps_finished_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        write_parquet(tmp_path / f"old/{name}.parquet", DOCUMENTS)
    converted([tmp_path / "old"], tmp_path / "new")
    # As a kill leaves it between the first and the last rename.
    (tmp_path / "new/b.idx").unlink()
    (tmp_path / "new/c.bin").unlink()
    found = converted([tmp_path / "old"], tmp_path / "new")

    assert [file.was_there for file in found] == [True, False, False]
    assert documents(*(tmp_path / "new" / name for name in "abc")) == DOCUMENTS * 3


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"eod_id": None}, None),
        ({"is_packed": True}, None),
        ({"vocab_size": 100_000}, None),
        ({"vocab_size": 90}, None),
        ({"keep": ("url",)}, None),
        ({}, DOCUMENTS[:5]),
    ],
    ids=str,
)
def test_a_shard_of_other_settings_or_rows_is_not_replaced(
    tmp_path: Path, settings: dict[str, Any], change: list[list[int]] | None
) -> None:
    path = write_parquet(tmp_path / "a.parquet", DOCUMENTS)
    converted([path], tmp_path)
    before = (tmp_path / "a.bin").read_bytes()
    if change:
        write_parquet(path, change)

    with pytest.raises(ConfigError, match=r"a\.bin: exists already, and was not made from"):
        converted([path], tmp_path, **settings)
    assert (tmp_path / "a.bin").read_bytes() == before
    converted([path], tmp_path, overwrite=True, **settings)
    assert len(documents(tmp_path / "a")) == len(change or DOCUMENTS)


def test_the_output_may_be_the_folder_of_the_rows(tmp_path: Path) -> None:
    """``PREFIX.docs.parquet`` is not an input of the next call."""
    write_parquet(tmp_path / "web/a.parquet", DOCUMENTS)
    for was_there in (False, True):
        (found,) = converted([tmp_path], tmp_path)
        assert found.was_there is was_there


def test_an_interrupted_conversion_leaves_no_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(convert_rows_module.ShardWriter, "close", interrupt)

    with pytest.raises(KeyboardInterrupt):
        converted([write_parquet(tmp_path / "a.parquet", DOCUMENTS)], tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


# What cannot be converted


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "null row": (lambda p: write_parquet(p, [[1], None]), "row 1: 'input_ids' is null"),
    "null id": (lambda p: write_parquet(p, [[1], [2, None]]), "row 1: 'input_ids' holds a null"),
    "floats": (
        lambda p: write_parquet(p, [[1.0]], pa.list_(pa.float32())),
        "of type list<element: float>, expected lists of integers",
    ),
    "nested": (
        lambda p: write_parquet(p, [[[1]]], pa.list_(pa.list_(pa.int32()))),
        "expected lists of integers",
    ),
    "numbers": (lambda p: write_parquet(p, [1], pa.int32()), "of type int32, expected lists of"),
    "no column": (
        lambda p: pq.write_table(pa.table({"text": ["a"]}), p),
        "there is no column 'input_ids', found text. Name the column of the ids with --column",
    ),
    "negative": (
        lambda p: write_parquet(p, [[1], [2, -100]]),
        "row 1: holds the id -100, expected 0 to 2. Check --column",
    ),
    "mask": (
        lambda p: write_parquet(p, [[1, 2]], attention_mask=pa.array([[1]])),
        "row 0: attention_mask and the ids differ in length",
    ),
    "mask of text": (
        lambda p: write_parquet(p, [[1, 2]], attention_mask=pa.array(["11"])),
        "column 'attention_mask' is of type string, expected lists of 0 and 1",
    ),
    "no Parquet": (lambda p: p.write_bytes(b"PAR1"), "cannot be read as a Parquet file"),
    "packed without end": (lambda p: write_parquet(p, [[5, 6]]), "row hold no 2, the id that"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_file_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from blendtitan.prepare import row_documents

    monkeypatch.setattr(row_documents, "_LONGEST_PACKED", 1)
    write, message = UNUSABLE[kind]
    (tmp_path / "old").mkdir()
    write(tmp_path / "old/a.parquet")

    with pytest.raises(BlendTitanError, match=re.escape(message)):
        converted([tmp_path / "old"], tmp_path / "new", is_packed=kind.startswith("packed"))
    assert not list(tmp_path.glob("new/*"))


def test_the_other_files_are_converted(tmp_path: Path) -> None:
    write_parquet(tmp_path / "old/a.parquet", [[5, 70]])
    write_parquet(tmp_path / "old/b.parquet", [[5, 6]])

    with pytest.raises(ShardError, match=r"row 0: holds the id 70, expected 0 to 9.*(?s:.)*1 of 2"):
        converted([tmp_path / "old"], tmp_path / "new", vocab_size=10)
    assert documents(tmp_path / "new/b") == [[5, 6, EOD]]


def test_a_file_without_rows_becomes_no_shard(tmp_path: Path) -> None:
    """Spark writes such parts."""
    write_parquet(tmp_path / "old/a.parquet", [])
    write_parquet(tmp_path / "old/b.parquet", DOCUMENTS)
    found = converted([tmp_path / "old"], tmp_path / "new")

    assert [*conversion_notes(found)] == ["no shard was made from 1 file without ids"]
    assert sorted({path.name.split(".")[0] for path in tmp_path.glob("new/*")}) == ["b"]


def edit_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / "index.json").read_text())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


def truncate(folder: Path) -> None:
    path = min(path for path in folder.iterdir() if path.name != "index.json")
    os.truncate(path, path.stat().st_size - 1)


def patch(folder: Path, at: int, value: int) -> None:
    path = min(path for path in folder.iterdir() if path.name != "index.json")
    with path.open("r+b") as file:
        file.seek(at)
        file.write(value.to_bytes(4, "little"))


DAMAGED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "MDS, pickle": ("mds_pickle", lambda _: None, "Pickled values are never loaded"),
    "MDS, gz": ("mds_gz", lambda _: None, "compressed with gz, expected zstd or no compression"),
    "MDS, bytes": ("mds_bytes", lambda _: None, "holds bytes, so the type of its ids is not known"),
    "MDS, cut": ("mds_type", truncate, "according to index.json. Copy the folder again"),
    "MDS, cut zstd": ("mds_zstd", truncate, "compressed data is cut off"),
    "MDS, rows": (
        "mds_type",
        lambda p: edit_index(p, lambda index: index["shards"][0].update(samples=7)),
        "rows, expected 7, according to index.json",
    ),
    "MDS, offsets": ("mds_type", lambda p: patch(p, 8, 1), "expected growing offsets from"),
    "MDS, sizes": (
        "mds_type",
        lambda p: edit_index(p, lambda index: index["shards"][0].update(column_sizes=[8, None, 3])),
        "row 0: the sizes of its columns do not sum to its own size",
    ),
    "MDS, elsewhere": (
        "mds_type",
        lambda p: edit_index(
            p, lambda index: index["shards"][0]["raw_data"].update(basename="../a.mds")
        ),
        "lists the file '../a.mds', expected one below this folder",
    ),
    "litdata, elsewhere": (
        "litdata_tokens",
        lambda p: edit_index(p, lambda index: index["chunks"][0].update(filename="/a.bin")),
        "lists the file '/a.bin', expected one below this folder",
    ),
    "MDS, missing": ("mds_type", lambda p: (p / "shard.00000.mds").unlink(), "cannot be read"),
    "MDS, index": ("mds_type", lambda p: os.truncate(p / "index.json", 9), "index.json: cannot be"),
    "MDS, JSON": (
        "mds_type",
        lambda p: edit_index(p, lambda index: index["shards"][0].update(format="json")),
        "a shard of format 'json', version 2, expected 'mds'",
    ),
    "litdata, cut": ("litdata_tokens", truncate, "according to index.json. Copy the folder again"),
    "litdata, cut zstd": ("litdata_zstd_chunk", truncate, "compressed data is cut off"),
    "litdata, runs": ("litdata_zstd_batch", lambda p: patch(p, 12, 3), "has version 1, 3 items"),
    "litdata, encrypted": (
        "litdata_tokens",
        lambda p: edit_index(
            p, lambda index: index["config"].update(encryption={"level": "chunk"})
        ),
        "the chunks are encrypted",
    ),
    "litdata, Parquet": (
        "litdata_tokens",
        lambda p: edit_index(p, lambda index: index["config"].update(item_loader="ParquetLoader")),
        "the item loader is ParquetLoader",
    ),
    "litdata, floats": (
        "litdata_tokens",
        lambda p: edit_index(
            p, lambda index: index["config"].update(data_format=["no_header_numpy:9"])
        ),
        "of type 'no_header_numpy:9', expected an array of integers",
    ),
    "litdata, pickle": (
        "litdata_dict",
        lambda p: edit_index(
            p, lambda index: index["config"].update(data_format=["str", "pickle"])
        ),
        "of type 'pickle', expected an array of integers",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_or_unknown_folder_is_refused(tmp_path: Path, kind: str) -> None:
    name, damage, message = DAMAGED[kind]
    shutil.copytree(DATA / name, tmp_path / "old")
    damage(tmp_path / "old")

    with pytest.raises((InputError, ConfigError, ShardError), match=re.escape(message)):
        converted([tmp_path / "old"], tmp_path / "new", vocab_size=1000)


@pytest.mark.parametrize("name", ["mds_type", "litdata_tokens"])
def test_columns_are_kept_of_tables_only(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--keep records columns of Parquet and Arrow files"):
        converted([DATA / name], tmp_path, keep=("url",))


def test_chunks_of_litdata_are_not_overwritten(tmp_path: Path) -> None:
    """They have the name of a shard's tokens."""
    shutil.copytree(DATA / "litdata_tokens", tmp_path / "old")

    with pytest.raises(ConfigError, match=r"chunk-0-0\.bin: is an input and would be overwritten"):
        converted([tmp_path / "old"], tmp_path / "old", overwrite=True)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [write_parquet(tmp_path / name / "web.parquet", DOCUMENTS) for name in "ab"]

    with pytest.raises(ConfigError, match="would both become the shard web"):
        converted(paths, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"is_packed": True}, "--packed needs --eod-id"),
        ({"eod_id": 9, "vocab_size": 9}, "eod_id is 9, expected an id below"),
        ({"keep": ("row",)}, "the fields to keep are 'row'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        RowSettings(**settings)


# The command


def test_the_command_converts_rows_and_tells_what_it_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parquet(tmp_path / "old/web/a.parquet", [[5], [6, EOD]])
    write_parquet(tmp_path / "old/code/b.parquet", [[7, EOD]])
    arguments = ["convert", str(tmp_path / "old"), "--output", str(tmp_path / "new")]

    assert main([*arguments, "--eod-id", "2"]) == 0
    shown = capsys.readouterr()
    assert re.search(r"new/web/a: 2 documents, 4 tokens, from .*a\.parquet \(Parquet\)", shown.out)
    assert "EOD was appended to 1 document that did not end in it" in shown.err
    assert main([*arguments, "--eod-id", "2"]) == 0
    assert "2 converted before" in capsys.readouterr().out
    assert main([*arguments, "--eod-id", "2", "--column", "none", "--overwrite"]) == 1


def test_files_that_are_left_out_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    for name in ("web/a.parquet", "web/b.PARQUET"):
        write_parquet(old / name, [[5, EOD]])
    shutil.copytree(DATA / "mds_type", old / "mds")
    left_out = ["mds/shard.00009.mds", "web/c.pq", "web/d.parquet.zst", "web/e.bin", "web/e.idx"]
    for name in (*left_out, "README.md", "web/.hidden"):
        (old / name).write_bytes(b"")
    (old / "web/again").symlink_to(old)
    arguments = ["convert", str(old), "--output", str(old), "--eod-id", "2"]

    for _ in range(2):
        assert main(arguments) == 0
        shown = capsys.readouterr().err
        names = ", ".join(str(old / name) for name in left_out)
        assert f"5 files of another format left out: {names}\n" in shown
    assert documents(old / "web/a", old / "web/b") == [[5, EOD]] * 2


def test_options_of_rows_are_refused_for_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert", str(tmp_path), "--output", str(tmp_path), "--packed", "--eod-id", "2"]

    assert main(arguments) == 1
    assert "--keep do not apply to it" in capsys.readouterr().err

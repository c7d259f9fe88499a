"""Convert writes the same shard as Megatron's tools would, or nothing."""

import struct
from pathlib import Path

import numpy as np
import pytest

from blendtitan.cli import main
from blendtitan.errors import ConfigError, CorruptShardError
from blendtitan.prepare.convert import convert
from blendtitan.storage import writer
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.writer import encode_index
from tests.conftest import EOD, WriteShard

ITEMS = [[5, 6, EOD], [7], [8, EOD], [], [9, 300, EOD]]
DOCUMENTS = [0, 1, 3, 3, 5]
"""The second document has two items, the third none, the fourth an empty one as well."""


def write_tntidx(
    prefix: Path, items: list[list[int]], documents: list[int] | None, dtype: str = "<i4"
) -> Path:
    """Write like ``IndexedDatasetBuilder`` of gpt-neox, or of fairseq without ``documents``."""
    code = {"<u2": 8, "<i4": 4, "<i8": 5}[dtype]
    lens = [len(item) for item in items]
    plus = 1 if documents is None else 0
    prefix.parent.mkdir(parents=True, exist_ok=True)
    tokens = np.array([token + plus for item in items for token in item], dtype)
    Path(f"{prefix}.bin").write_bytes(tokens.tobytes())
    header = [1, code, np.dtype(dtype).itemsize, len(items), len(items)]
    if documents is not None:
        header.append(len(documents))
    longs = [*range(len(items) + 1), 0, *np.cumsum(lens).tolist(), *lens, *(documents or [])]
    Path(f"{prefix}.idx").write_bytes(
        b"TNTIDX\0\0" + struct.pack(f"<{len(header) + len(longs)}q", *header, *longs)
    )
    return prefix


def tokens_of(prefix: Path) -> list[int]:
    dtype = ShardIndex.open(prefix).dtype
    return np.frombuffer(Path(f"{prefix}.bin").read_bytes(), dtype).tolist()


@pytest.mark.parametrize("dtype", ["<u2", "<i4", "<i8"])
def test_a_shard_of_gpt_neox_keeps_tokens_sequences_and_documents(
    tmp_path: Path, dtype: str
) -> None:
    old = write_tntidx(tmp_path / "old/web", ITEMS, DOCUMENTS, dtype)

    (found,) = convert([old], tmp_path / "new")

    expected = encode_index(
        np.array([3, 1, 2, 0, 3], np.int32), np.array(DOCUMENTS), dtype=np.dtype(dtype)
    )
    assert (tmp_path / "new/web.idx").read_bytes() == b"".join(expected)
    assert (tmp_path / "new/web.bin").read_bytes() == (tmp_path / "old/web.bin").read_bytes()
    assert (found.num_documents, found.num_tokens, found.description) == (4, 9, "TNTIDX")


def test_the_1_that_fairseq_adds_to_ids_is_subtracted(tmp_path: Path) -> None:
    """Its reader subtracts it as well. Each item is a document."""
    (found,) = convert([write_tntidx(tmp_path / "web", ITEMS, None)], tmp_path / "new")

    assert tokens_of(tmp_path / "new/web") == [token for item in ITEMS for token in item]
    assert ShardIndex.open(tmp_path / "new/web").document_starts(0, 5).tolist() == [
        0,
        3,
        4,
        6,
        6,
        9,
    ]
    assert "fairseq" in found.description


def test_ids_that_fairseq_cannot_have_stored_are_refused(tmp_path: Path) -> None:
    prefix = write_tntidx(tmp_path / "web", [[5, -1]], None)

    with pytest.raises(CorruptShardError, match="found the stored id 0, expected 1 or more"):
        list(convert([prefix], tmp_path / "new"))
    assert not list((tmp_path / "new").iterdir())


def test_a_multimodal_shard_of_text_loses_its_modes(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    prefix = write_shard("old/web", [[5, EOD], [6, EOD]])
    right = Path(f"{prefix}.idx").read_bytes()
    Path(f"{prefix}.idx").write_bytes(right + bytes(2))

    list(convert([prefix], tmp_path / "new"))

    assert (tmp_path / "new/web.idx").read_bytes() == right
    assert tokens_of(tmp_path / "new/web") == [5, EOD, 6, EOD]


def test_a_multimodal_shard_of_more_than_text_is_refused(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    prefix = write_shard("old/web", [[5, EOD], [6, EOD]])
    with Path(f"{prefix}.idx").open("ab") as idx:
        idx.write(b"\0\1")

    with pytest.raises(CorruptShardError, match=r"sequence 1 has mode 1, expected 0 \(text\)"):
        list(convert([prefix], tmp_path / "new"))


def test_shards_of_a_folder_keep_their_place(tmp_path: Path) -> None:
    write_tntidx(tmp_path / "old/web/0", ITEMS, DOCUMENTS)
    write_tntidx(tmp_path / "old/code/0", ITEMS, DOCUMENTS)

    assert main(["convert", str(tmp_path / "old"), "--output", str(tmp_path / "new")]) == 0
    found = sorted(str(path.relative_to(tmp_path / "new")) for path in tmp_path.glob("new/*/*"))
    assert found == ["code/0.bin", "code/0.idx", "web/0.bin", "web/0.idx"]


def test_existing_shards_are_not_overwritten(tmp_path: Path, write_shard: WriteShard) -> None:
    old = write_tntidx(tmp_path / "old/web", ITEMS, DOCUMENTS)
    write_shard("new/web", [[1]])
    before = (tmp_path / "new/web.bin").read_bytes()

    with pytest.raises(ConfigError, match=r"web\.bin: exists already.*--overwrite"):
        list(convert([old], tmp_path / "new"))
    with pytest.raises(ConfigError, match=r"web\.bin: is an input"):
        list(convert([old], tmp_path / "old", overwrite=True))
    assert (tmp_path / "new/web.bin").read_bytes() == before
    list(convert([old], tmp_path / "new", overwrite=True))
    assert len(tokens_of(tmp_path / "new/web")) == 9


def test_two_shards_of_one_name_are_not_converted_into_one(tmp_path: Path) -> None:
    inputs = [write_tntidx(tmp_path / name / "web", ITEMS, DOCUMENTS) for name in ("a", "b")]

    with pytest.raises(ConfigError, match="would both become"):
        list(convert(inputs, tmp_path / "new"))


def test_a_shard_in_megatrons_format_is_named(tmp_path: Path, write_shard: WriteShard) -> None:
    with pytest.raises(ConfigError, match="is already in Megatron's format"):
        list(convert([write_shard("old/web", [[5, EOD]])], tmp_path / "new"))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (8, 2, "version 2"),
        (16, 6, "dtype code 6"),
        (32, 1 << 60, "bytes, expected"),
        (48, 7, "bytes, expected"),
        (56 + 8 * 2, 1, "items of several dimensions"),
        (56 + 8 * 7, 4, "item 1 starts at token 4, expected 3"),
        (56 + 8 * 11, 8, "the last item ends at token 8, expected 9"),
        (56 + 8 * 12, -3, "items of -3 to 3 tokens"),
        (56 + 8 * 18, 4, "a decreasing document index"),
        (56 + 8 * 21, 4, "the document index ends at item 4, expected 5"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(
    tmp_path: Path, at: int, value: int, message: str
) -> None:
    prefix = write_tntidx(tmp_path / "web", ITEMS, DOCUMENTS)
    with Path(f"{prefix}.idx").open("r+b") as idx:
        idx.seek(at)
        idx.write(struct.pack("<q", value))

    with pytest.raises(CorruptShardError, match=message):
        list(convert([prefix], tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_an_interrupted_conversion_leaves_no_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = write_tntidx(tmp_path / "web", ITEMS, DOCUMENTS)

    def interrupt(*_: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "publish", interrupt)

    with pytest.raises(KeyboardInterrupt):
        list(convert([prefix], tmp_path / "new"))
    assert not list((tmp_path / "new").iterdir())

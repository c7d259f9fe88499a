"""Shards: Megatron's bytes, complete or absent; damage is found when a shard is opened."""

import gc
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.dataset.stretches import document_at
from blendtitan.errors import CorruptShardError, MissingShardError, ShardError
from blendtitan.storage.index_arrays import IndexArrays
from blendtitan.storage.reader import OpenFile, OpenFiles, ShardIndex
from blendtitan.storage.writer import ShardWriter, encode_index, token_dtype
from tests.conftest import WriteShard


def test_the_bytes_are_those_of_megatron(write_shard: WriteShard) -> None:
    """Written out field by field, as Megatron-LM's indexed dataset lays them out."""
    prefix = write_shard("wiki.v2", [[5, 6, 2], [7, 2]])

    assert Path(f"{prefix}.bin").read_bytes() == struct.pack("<5H", 5, 6, 2, 7, 2)
    assert Path(f"{prefix}.idx").read_bytes() == b"".join(
        [
            b"MMIDIDX\x00\x00",
            struct.pack("<Q", 1),  # version
            struct.pack("<B", 8),  # uint16
            struct.pack("<Q", 2),  # sequences
            struct.pack("<Q", 3),  # documents + 1
            struct.pack("<2i", 3, 2),  # lengths in tokens
            struct.pack("<2q", 0, 6),  # offsets in bytes
            struct.pack("<3q", 0, 1, 2),  # first sequence of each document
        ]
    )


@given(lens=st.lists(st.integers(0, 20), min_size=1, max_size=30), data=st.data())
def test_document_starts_are_those_of_the_lengths(lens: list[int], data: st.DataObject) -> None:
    """Also where documents hold several sequences, or none, as Megatron's may."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(lens)), max_size=6)))
    document_index = np.array([0, *cuts, len(lens)], np.int64)
    index = b"".join(encode_index(np.array(lens, np.int32), document_index, dtype=np.dtype("<i4")))
    expected = np.concatenate([[0], np.cumsum(lens)])[document_index].tolist()
    if sum(lens) == 0:
        return
    shard = shard_of_bytes(index, bytes(4 * sum(lens)))
    one_by_one = [shard.document_start(i) for i in range(len(document_index))]

    assert one_by_one == expected
    assert shard.document_starts(0, shard.num_documents).tolist() == expected
    for offset in range(sum(lens)):
        document_id = document_at(shard, offset)
        assert expected[document_id] <= offset < expected[document_id + 1]


def shard_of_bytes(index: bytes, tokens: bytes) -> ShardIndex:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder, "shard")
        Path(f"{prefix}.idx").write_bytes(index)
        Path(f"{prefix}.bin").write_bytes(tokens)
        return ShardIndex.open(prefix)  # The open file outlives its folder.


def test_an_error_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    def write_half() -> None:
        with ShardWriter.create(tmp_path / "wiki", dtype=np.dtype("<u2")) as writer:
            writer.add_document(np.array([1, 2]))
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write_half()

    assert list(tmp_path.iterdir()) == []


def test_files_appear_only_when_complete(tmp_path: Path) -> None:
    writer = ShardWriter.create(tmp_path / "wiki", dtype=np.dtype("<u2"))
    writer.add_document(np.array([1, 2]))
    names_before = {path.suffix for path in tmp_path.iterdir()}
    writer.close()

    assert ".idx" not in names_before
    assert ".bin" not in names_before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wiki.bin", "wiki.idx"]


def test_an_id_that_does_not_fit_is_refused_not_wrapped(tmp_path: Path) -> None:
    with (
        pytest.raises(OverflowError, match="do not fit uint16"),
        ShardWriter.create(tmp_path / "wiki", dtype=token_dtype(65536)) as writer,
    ):
        writer.add_document(np.array([65536]))


def test_the_smallest_type_that_holds_the_vocabulary_is_used() -> None:
    assert token_dtype(65536) == np.dtype("<u2")
    assert token_dtype(65537) == np.dtype("<i4")


def overwrite(suffix: str, at: int, new: bytes) -> Callable[[Path], None]:
    def damage(prefix: Path) -> None:
        path = Path(f"{prefix}{suffix}")
        data = bytearray(path.read_bytes())
        data[at : at + len(new)] = new
        path.write_bytes(bytes(data))

    return damage


def cut(suffix: str, num_bytes: int) -> Callable[[Path], None]:
    return lambda prefix: os.truncate(f"{prefix}{suffix}", num_bytes)


def remove(suffix: str) -> Callable[[Path], None]:
    return lambda prefix: Path(f"{prefix}{suffix}").unlink()


def replace_by_folder(suffix: str) -> Callable[[Path], None]:
    def damage(prefix: Path) -> None:
        Path(f"{prefix}{suffix}").unlink()
        Path(f"{prefix}{suffix}").mkdir()

    return damage


DAMAGES = {
    "truncated bin": (cut(".bin", 6), CorruptShardError, r"wiki\.bin: found 6 bytes, expected 10"),
    "odd bin": (cut(".bin", 9), CorruptShardError, r"wiki\.bin: found 9 bytes, expected 10"),
    "truncated idx": (
        cut(".idx", 60),
        CorruptShardError,
        r"wiki\.idx: found 60 bytes, expected 82",
    ),
    "cut header": (cut(".idx", 20), CorruptShardError, r"wiki\.idx: found 20 bytes, expected a he"),
    "empty idx": (cut(".idx", 0), CorruptShardError, r"wiki\.idx: found 0 bytes"),
    "wrong magic": (overwrite(".idx", 0, b"NOTMEGATR"), CorruptShardError, "starts with b'NOTMEGA"),
    "wrong version": (overwrite(".idx", 9, b"\x02"), CorruptShardError, "version is 2, expected 1"),
    "dtype unknown": (overwrite(".idx", 17, b"\x09"), CorruptShardError, r"code is 9 \(unknown\)"),
    "dtype float": (overwrite(".idx", 17, b"\x07"), CorruptShardError, r"code is 7 \(float32\)"),
    "dtype wider": (overwrite(".idx", 17, b"\x04"), CorruptShardError, "found 10 bytes"),
    "counts": (overwrite(".idx", 18, b"\x03"), CorruptShardError, "expected 94"),
    "no documents": (overwrite(".idx", 26, b"\x00"), CorruptShardError, "has 0 entries"),
    "lengths disagree": (overwrite(".idx", 38, b"\x01"), CorruptShardError, "has 1 token of 2"),
    "pointers disagree": (overwrite(".idx", 50, b"\x04"), CorruptShardError, "from byte 4"),
    "first pointer": (overwrite(".idx", 42, b"\x02"), CorruptShardError, r"\(2, 0, 2\), expected"),
    "document index": (overwrite(".idx", 74, b"\x07"), CorruptShardError, r"\(0, 0, 7\), expected"),
    "unreadable idx": (
        replace_by_folder(".idx"),
        MissingShardError,
        "it is a folder, expected a reg",
    ),
    "missing bin": (remove(".bin"), MissingShardError, r"wiki\.bin: cannot be read"),
    "missing idx": (remove(".idx"), MissingShardError, r"wiki\.bin exists, so the copy is incom"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_refused_when_opened(write_shard: WriteShard, damage: str) -> None:
    """The error names the file, what was found, what was expected and the way out."""
    damage_files, kind, message = DAMAGES[damage]
    prefix = write_shard("wiki", [[5, 6, 2], [7, 2]])
    damage_files(prefix)

    with pytest.raises(kind, match=message):
        ShardIndex.open(prefix)


def test_an_error_about_one_document_uses_the_singular(write_shard: WriteShard) -> None:
    prefix = write_shard("wiki", [[5, 6, 2]])
    cut(".idx", 50)(prefix)

    with pytest.raises(CorruptShardError, match=r"50 bytes, .* \(1 sequence, 1 document, from"):
        ShardIndex.open(prefix)


def test_lengths_that_do_not_count_the_eods_are_recognised(tmp_path: Path) -> None:
    """As a tool left them that appended EOD without counting it: every boundary drifts."""
    index = encode_index(
        np.array([2, 3, 1], np.int32), np.arange(4, dtype=np.int64), dtype=np.dtype("<u2")
    )

    with pytest.raises(CorruptShardError, match=r"one token more for each of 3 documents"):
        shard_of_bytes(b"".join(index), bytes(2 * 9))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (78, 9, "document 1 starts at sequence 9, expected 0 to 3"),
        (78, -1, "document 1 starts at sequence -1"),
        (54, 3, "sequence 1 starts at byte 3, expected a multiple of 2"),
        (54, 90, "sequence 1 starts at byte 90"),
    ],
)
def test_entries_that_lead_outside_the_bin_are_refused(
    write_shard: WriteShard, at: int, value: int, message: str
) -> None:
    """A hostile ``.idx`` cannot make it read elsewhere."""
    prefix = write_shard("wiki", [[5, 6], [7, 2], [8, 2]])
    overwrite(".idx", at, struct.pack("<q", value))(prefix)
    index = ShardIndex.open(prefix)

    with pytest.raises(CorruptShardError, match=message):
        index.document_start(1)
    with pytest.raises(CorruptShardError, match="documents 0 to 3"):
        index.document_starts(0, 3)


LOWEST = -(2**63)


def test_entries_whose_differences_overflow_are_refused() -> None:
    """From 1 to the lowest number is a step up, counted in 64 bits."""
    lens, dtype = np.array([2, 2, 2, 2], np.int32), np.dtype("<u1")
    right = b"".join(encode_index(lens, dtype=dtype))
    documents_at, pointers_at = len(right) - 8 * 5, len(right) - 8 * 9
    for at, values in ((documents_at, [0, 1, LOWEST, -1, 4]), (pointers_at, [0, 1, LOWEST, -1])):
        index = bytearray(right)
        index[at : at + 8 * len(values)] = struct.pack(f"<{len(values)}q", *values)
        if at == pointers_at:
            index[at + 24 : at + 32] = struct.pack("<q", 6)  # checked when it is opened
        shard = shard_of_bytes(bytes(index), bytes(8))
        with pytest.raises(CorruptShardError, match="go backwards"):
            shard.document_starts(0, 4)
        if at == documents_at:
            with pytest.raises(CorruptShardError, match=f"starts at sequence {LOWEST}"):
                IndexArrays.of_file(shard.file).check_documents()


def test_an_empty_shard_is_refused(write_shard: WriteShard) -> None:
    with pytest.raises(CorruptShardError, match="the shard is empty"):
        ShardIndex.open(write_shard("wiki", []))


def test_naming_a_file_instead_of_the_prefix_is_explained(write_shard: WriteShard) -> None:
    prefix = write_shard("wiki", [[5, 2]])

    with pytest.raises(MissingShardError, match=r"Name the shard without \.bin"):
        ShardIndex.open(Path(f"{prefix}.bin"))


@given(noise=st.binary(max_size=200))
def test_arbitrary_bytes_give_only_our_errors(noise: bytes) -> None:
    for index in (noise, b"MMIDIDX\x00\x00" + struct.pack("<QB", 1, 8) + noise):
        with pytest.raises(ShardError):
            shard_of_bytes(index, b"12345678")


def test_at_most_so_many_files_stay_open(tmp_path: Path) -> None:
    """Thousands of shards work under a small limit of open files."""
    gc.collect()  # of other tests, which may hold files
    before = len(os.listdir("/proc/self/fd"))
    files = OpenFiles(max_open=3)
    for i in range(10):
        path = tmp_path / f"{i}"
        path.write_bytes(bytes(i))
        files.open(str(path), lambda i=i: i)

    assert len(os.listdir("/proc/self/fd")) == before + 3


def test_the_file_used_longest_ago_is_closed_first(tmp_path: Path) -> None:
    files = OpenFiles(max_open=2)
    for name in "abac":
        (tmp_path / name).touch()
        files.open(str(tmp_path / name), lambda: 0)
    opened = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]

    assert sorted(Path(path).name for path in opened if str(tmp_path) in path) == ["a", "c"]


def test_a_file_pushed_out_while_it_is_read_stays_open_for_that_read(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * 4)
    files = OpenFiles(max_open=1)
    first = files.open(str(tmp_path / "a"), lambda: 4)
    files.open(str(tmp_path / "b"), lambda: 4)

    assert first.read(4, at=0) == b"aaaa"


def test_a_file_that_ends_early_is_an_error_not_a_short_read(tmp_path: Path) -> None:
    path = tmp_path / "wiki.bin"
    path.write_bytes(b"1234")
    file = OpenFile.open(str(path))

    with pytest.raises(CorruptShardError, match=r"ends at byte 4, expected at least 10"):
        file.read_into(np.empty(4, "<u2"), at=2)


def test_a_replaced_file_is_noticed_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "wiki.bin"
    path.write_bytes(b"123456")

    with pytest.raises(CorruptShardError, match="found 6 bytes, expected 8"):
        OpenFiles(1).open(str(path), lambda: 8)

"""The catalog, or what is wrong with the data, reaches every rank."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blendtitan.storage.writer import ShardWriter
from blendtitan.titan.shared_catalog import from_first_rank
from tests.titan import share_catalogs
from tests.titan.launched import Launched


def write_shard(prefix: Path, documents: int = 5) -> None:
    with ShardWriter.create(prefix, dtype=np.dtype("<u2")) as writer:
        for _ in range(documents):
            writer.add_document(np.array([5, 6, 2]))


def overwrite(suffix: str, at: int, new: bytes) -> Callable[[Path], None]:
    def damage(prefix: Path) -> None:
        with open(f"{prefix}{suffix}", "r+b") as file:
            file.seek(at)
            file.write(new)

    return damage


def make_folder(suffix: str) -> Callable[[Path], None]:
    def damage(prefix: Path) -> None:
        Path(f"{prefix}{suffix}").unlink()
        Path(f"{prefix}{suffix}").mkdir()

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "truncated": (lambda p: os.truncate(f"{p}.bin", 8), "CorruptShardError", "found 8 bytes"),
    "magic": (overwrite(".idx", 0, b"X"), "CorruptShardError", "starts with"),
    "dtype": (overwrite(".idx", 17, b"\x06"), "CorruptShardError", "dtype code is 6"),
    "lengths": (overwrite(".idx", 50, b"\x09"), "CorruptShardError", "has 9 tokens"),
    "no_idx": (lambda p: Path(f"{p}.idx").unlink(), "MissingShardError", ".bin exists"),
    "no_bin": (lambda p: Path(f"{p}.bin").unlink(), "MissingShardError", ".idx exists"),
    "empty": (lambda p: write_shard(p, 0), "CorruptShardError", "the shard is empty"),
    "unreadable": (
        make_folder(".idx"),
        "MissingShardError",
        "it is a folder, expected a regular file",
    ),
    "mixed": (overwrite(".bin", 4, b"\x07"), "MixedEodError", "4 of 5 documents"),
}
LISTS = {
    "nan": ("nan good", "FileListError", "weight is nan"),
    "negative": ("-1 good", "FileListError", "weight is -1.0"),
    "missing": ("1 nowhere", "MissingShardError", "cannot be opened"),
    "binary": ("\udcff", "FileListError", "cannot be read as UTF-8"),
}


@pytest.mark.slow
def test_whatever_is_wrong_is_the_same_error_on_every_rank_and_none_hangs(tmp_path: Path) -> None:
    """One run of two processes goes through all of it; only rank 0 reads."""
    write_shard(tmp_path / "good")
    expected = [("no error", "")]
    lists = [tmp_path / "good.txt"]
    lists[0].write_text("1 good")
    for name, (damage, kind, message) in DAMAGES.items():
        write_shard(tmp_path / name)
        damage(tmp_path / name)
        lists.append(tmp_path / f"{name}.txt")
        lists[-1].write_text(f"1 good\n1 {name}")
        expected.append((kind, message))
    for name, (text, kind, message) in LISTS.items():
        lists.append(tmp_path / f"list_{name}.txt")
        lists[-1].write_bytes(text.encode(errors="surrogateescape"))
        expected.append((kind, message))

    words = list(map(str, lists))
    run = Launched.start(words, processes=2, record=tmp_path / "found", entry=share_catalogs.main)
    assert run.wait(120) == 0, run.output
    found = [json.loads((tmp_path / f"found.{rank}").read_text()) for rank in (0, 1)]

    assert found[0] == found[1]
    for (kind, text), (expected_kind, message) in zip(found[0], expected, strict=True):
        assert kind == expected_kind, text
        assert message in text


def test_a_foreign_error_keeps_its_type() -> None:
    with pytest.raises(KeyError, match="missing") as caught:
        from_first_rank(share_catalogs.find_nothing)

    assert caught.traceback[-1].name == "find_nothing"


@pytest.mark.slow
def test_an_error_that_is_not_ours_reaches_other_ranks_with_its_traceback(tmp_path: Path) -> None:
    """Whichever rank is looked at, it says where rank 0 was."""
    entry = share_catalogs.share_nothing
    run = Launched.start([], processes=2, record=tmp_path / "found", entry=entry)
    assert run.wait(120) == 0, run.output
    found = [json.loads((tmp_path / f"found.{rank}").read_text()) for rank in (0, 1)]

    assert found[0] == ["KeyError", "'missing'"]
    assert found[1][0] == "RuntimeError"
    assert found[1][1].startswith("rank 0 failed:\nTraceback")
    assert "in find_nothing" in found[1][1]
    assert found[1][1].endswith("KeyError: 'missing'\n")

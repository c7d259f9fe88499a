import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blendtitan.cli import main
from blendtitan.inspection import tokens as tokens_module
from blendtitan.inspection.verify import Expected, VerifiedShard, verify
from blendtitan.storage import index_arrays
from blendtitan.storage.index_format import encode_index
from tests.conftest import EOD, WriteShard
from tests.inspection.conftest import WriteUncounted

DOCUMENTS = [[5, 6, EOD], [7, EOD], [8, 9, 10, EOD]]

# Of a shard of three documents: where its arrays begin in the .idx.
LENS_AT, POINTERS_AT, DOCUMENTS_AT = 34, 46, 70


def checked(prefix: Path, vocab_size: int | None = 11, eod_id: int | None = EOD) -> VerifiedShard:
    (shard,) = verify([prefix], Expected(vocab_size=vocab_size, eod_id=eod_id))
    return shard


def overwrite(path: Path, at: int, value: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(value)


def test_a_sound_shard_has_no_problem_and_its_counts_are_shown(write_shard: WriteShard) -> None:
    shard = checked(write_shard("web", DOCUMENTS))

    assert shard.problems == []
    assert shard.tokens is not None
    assert (shard.tokens.num_eod, shard.tokens.num_documents) == (3, 3)
    assert (shard.tokens.min_id, shard.tokens.max_id) == (2, 10)


def test_a_shard_without_any_eod_is_sound(write_shard: WriteShard) -> None:
    """EOD is then inserted while reading."""
    shard = checked(write_shard("web", [[5, 6], [7]]))

    assert shard.problems == []
    assert shard.tokens is not None
    assert shard.tokens.num_eod == 0


def test_documents_of_several_sequences_or_none_are_sound(tmp_path: Path) -> None:
    index = encode_index(
        np.array([2, 1, 0, 4], np.int32), np.array([0, 2, 4, 4]), dtype=np.dtype("<u2")
    )
    (tmp_path / "web.idx").write_bytes(b"".join(index))
    (tmp_path / "web.bin").write_bytes(struct.pack("<7H", 5, 6, EOD, 7, 8, 9, EOD))

    shard = checked(tmp_path / "web", eod_id=None)

    assert shard.problems == []
    assert shard.tokens is not None
    assert shard.tokens.num_documents == 3


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (LENS_AT, struct.pack("<ii", 2, 3), "sequence 1 starts at byte 6, expected 4, where"),
        (LENS_AT + 4, struct.pack("<i", -2), "sequence 1 has -2 tokens, expected 0 or more"),
        (POINTERS_AT + 8, struct.pack("<q", 4), "sequence 1 starts at byte 4, expected 6"),
        (
            DOCUMENTS_AT + 8,
            struct.pack("<qq", 2, 1),
            "document 2 starts at sequence 1, expected 2 to 3",
        ),
        (
            DOCUMENTS_AT + 8,
            struct.pack("<q", 9),
            "document 1 starts at sequence 9, expected 0 to 3",
        ),
    ],
    ids=["lengths", "negative", "pointer", "document index", "outside"],
)
def test_every_entry_of_the_idx_is_compared(
    write_shard: WriteShard, at: int, value: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage that opening the shard does not find; also at the edges of blocks."""
    prefix = write_shard("web", DOCUMENTS)
    overwrite(Path(f"{prefix}.idx"), at, value)
    for block in (1, 2, 100):
        monkeypatch.setattr(index_arrays, "_BLOCK", block)

        (problem,) = checked(prefix).problems
        assert f"{prefix}.idx: {message}" in problem


@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
def test_a_token_outside_the_vocabulary_is_named_with_its_document(
    write_shard: WriteShard, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "_BLOCK_TOKENS", block)
    prefix = write_shard("web", DOCUMENTS)

    (problem,) = checked(prefix, vocab_size=9).problems

    assert "document 2 holds the token id 9, expected ids from 0 to 8" in problem
    assert checked(prefix, vocab_size=None).problems == []


def test_a_negative_token_is_outside_of_any_vocabulary(write_shard: WriteShard) -> None:
    (problem,) = checked(write_shard("web", [[5], [-1]], "<i4"), None, None).problems

    assert "document 1 holds the token id -1, expected ids from 0." in problem


@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
def test_a_mixture_of_documents_with_and_without_eod_says_how_many(
    write_shard: WriteShard, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document without tokens has no EOD either; EODs inside of documents do not count."""
    monkeypatch.setattr(tokens_module, "_BLOCK_TOKENS", block)

    (problem,) = checked(write_shard("web", [[5, EOD], [EOD, 6], [7, 8, EOD]])).problems
    (empty,) = checked(write_shard("code", [[5, EOD], [], [6, 7], [EOD]])).problems

    assert "2 of 3 documents end in EOD (2)" in problem
    assert "the first that does not is document 1." in problem
    assert "2 of 4 documents end in EOD (2)" in empty
    assert "the first that does not is document 1." in empty


def test_uncounted_eods_are_recognised_and_their_repair_is_named(
    write_uncounted: WriteUncounted,
) -> None:
    prefix = write_uncounted("web", DOCUMENTS)

    (problem,) = checked(prefix).problems

    assert f"blendtitan repair {prefix} --eod-id" in problem


def cut_bin(prefix: Path) -> None:
    Path(f"{prefix}.bin").write_bytes(b"\x05\x00")


def remove_bin(prefix: Path) -> None:
    Path(f"{prefix}.bin").unlink()


def remove_idx(prefix: Path) -> None:
    Path(f"{prefix}.idx").unlink()


@pytest.mark.parametrize("damage", [cut_bin, remove_bin, remove_idx])
def test_the_command_reports_all_shards_and_fails_where_one_is_bad(
    damage: Callable[[Path], None], write_shard: WriteShard, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = write_shard("tokens/web/a", DOCUMENTS), write_shard("tokens/web/b", DOCUMENTS)
    options = [str(bad.parents[1]), "--vocab-size", "11", "--eod-id", "2"]
    assert main(["verify", *options]) == 0
    damage(bad)
    capsys.readouterr()

    assert main(["verify", *options]) == 1
    shown = capsys.readouterr()
    rows = [line.split() for line in shown.out.splitlines()]
    assert [str(bad), "1", "wrong"] in rows
    assert [str(good), "3", "3", "9", "10", "good"] in rows
    assert shown.err.startswith(f"blendtitan verify: {bad}.")
    assert shown.err.endswith("1 of 2 shards are bad\n")


def test_json_has_what_was_found(
    write_shard: WriteShard, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_shard("web", DOCUMENTS)

    assert main(["verify", str(prefix), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "shards": [
            {
                "prefix": str(prefix),
                "corpus": "web",
                "documents": 3,
                "tokens": 9,
                "smallest_id": 2,
                "largest_id": 10,
                "documents_with_eod": None,
                "problems": [],
            }
        ]
    }


@pytest.mark.parametrize("option", ["--vocab-size", "--threads"])
def test_a_setting_out_of_range_is_an_error(
    option: str, write_shard: WriteShard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(write_shard("web", DOCUMENTS)), option, "0"]) == 1
    assert "expected an int of at least 1" in capsys.readouterr().err

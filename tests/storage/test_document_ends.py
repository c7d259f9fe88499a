"""How documents end: exact where that is cheap or recorded, else no more claimed than looked at."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blendtitan import BlendConfig
from blendtitan.cli import main
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import MixedEodError
from blendtitan.storage.catalog import EOD_BEGINS, EOD_ENDS, EOD_ENDS_AND_BEGINS
from blendtitan.storage.ends import find_document_ends
from blendtitan.storage.reader import OpenFile, ShardIndex
from blendtitan.storage.records import DocumentEnds
from tests.conftest import EOD, WriteShard

ALL = 1 << 40


def ends_of(prefix: Path, allowance: int = ALL) -> DocumentEnds:
    return find_document_ends(ShardIndex.open(prefix), EOD, allowance=allowance)


def config_of(prefix: Path, **settings: Any) -> BlendConfig:
    path = prefix.parent / "list.txt"
    path.write_text(f"1 {prefix.name}")
    return BlendConfig(**{"data_file_list": path, "seq_length": 4, "eod_token_id": EOD} | settings)


@pytest.mark.parametrize("block_documents", [1, 3, 1 << 16])
@pytest.mark.parametrize("block_bytes", [4, 64, 1 << 20])
@pytest.mark.parametrize("far", [2, 16, 1 << 14])
def test_every_document_is_looked_at(
    write_shard: WriteShard,
    far: int,
    block_bytes: int,
    block_documents: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever lies between them is read or skipped, and wherever blocks are cut."""
    monkeypatch.setattr("blendtitan.storage.ends._WHOLE_BYTES", far)
    monkeypatch.setattr("blendtitan.storage.ends._FAR_BYTES", far)
    monkeypatch.setattr("blendtitan.storage.ends._BLOCK_BYTES", block_bytes)
    monkeypatch.setattr("blendtitan.storage.ends._BLOCK_DOCUMENTS", block_documents)
    rng = np.random.default_rng(7)
    documents = [rng.integers(2, 5, rng.integers(0, 9)).tolist() for _ in range(40)]
    filled = [document for document in documents if document]

    assert ends_of(write_shard("web", documents)) == DocumentEnds(
        eod_id=EOD,
        num_documents=40,
        num_checked=40,
        num_filled=len(filled),
        num_eod=sum(document[-1] == EOD for document in filled),
        num_begin=sum(document[0] == EOD for document in filled),
    )


def test_428_of_1000_documents_without_eod_are_refused(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    """They are none of the first, the last, or those between at a quarter, a half and so on."""
    documents = [[5, 6 if 260 <= i < 474 or 510 <= i < 724 else EOD] for i in range(1000)]

    with pytest.raises(MixedEodError, match="web: 572 of 1,000 documents end in EOD"):
        read_catalog(config_of(write_shard("web", documents)))


def test_empty_documents_need_no_eod(write_shard: WriteShard) -> None:
    catalog = read_catalog(config_of(write_shard("web", [[], [5, EOD], [], [6, EOD], []])))

    assert catalog.lacks_eod.tolist() == [False]


@pytest.fixture
def large(write_shard: WriteShard, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shard that is taken as large: 4 of its 50 documents are looked at. One lacks EOD."""
    monkeypatch.setattr("blendtitan.storage.catalog._ENDS_BYTES", 0)
    monkeypatch.setattr("blendtitan.storage.ends._STRETCH_DOCUMENTS", 1)
    return write_shard("web", [[5, 6 if i == 7 else EOD] for i in range(50)])


def test_no_more_is_claimed_than_was_looked_at(
    large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    read_catalog(config_of(large))

    assert "all of them in 0 of 1 shards, and in the others a sample of 4 of 50" in caplog.text


def test_a_mixture_in_a_sample_gives_the_number_of_checked_documents(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blendtitan.storage.ends._STRETCHES", (8, 8))

    with pytest.raises(MixedEodError, match=r"7 of 8 documents checked \(50 in total\) end in EOD"):
        read_catalog(config_of(large))


def test_a_mixture_costs_no_more_reads_than_a_sound_shard(
    write_shard: WriteShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All other ranks wait for them."""
    reads: list[int] = []
    really = OpenFile.read_into

    def read_into(self: OpenFile, buffer: NDArray[np.integer], *, at: int) -> None:
        reads.append(at)
        really(self, buffer, at=at)

    monkeypatch.setattr(OpenFile, "read_into", read_into)
    counts: list[int] = []
    for name, last in (("sound", EOD), ("mixed", 6)):
        reads.clear()
        prefix = write_shard(name, [[5, EOD]] * 3000 + [[5, last]] * 3000)
        ends_of(prefix)
        counts.append(len(reads))

    assert counts[0] == counts[1] < 10


def test_the_result_of_verify_is_recorded_for_training(
    large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["verify", str(large), "--eod-id", str(EOD)]) == 1
    caplog.set_level(logging.INFO)

    with pytest.raises(MixedEodError, match="web: 49 of 50 documents end in EOD"):
        read_catalog(config_of(large))
    assert "sample" not in caplog.text


def test_a_recorded_shard_is_not_looked_into(
    write_shard: WriteShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = write_shard("web", [[5, EOD]] * 50)
    main(["verify", str(prefix), "--eod-id", str(EOD)])
    monkeypatch.setattr("blendtitan.storage.ends.find_document_ends", None)

    assert read_catalog(config_of(prefix)).lacks_eod.tolist() == [False]


def damage(content: object) -> bytes:
    return json.dumps(content).encode()


SOUND = {"format": 1, "eod_id": EOD, "num_documents": 50, "num_checked": 50, "num_filled": 50,
         "num_eod": 0, "num_begin": 0}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b"[" * 4096,
        damage({}),
        damage(SOUND),
        damage(SOUND | {"contents": [1, 2, 3, 4]}),
        damage(SOUND | {"contents": None}),
    ],
)
def test_an_implausible_record_is_ignored(write_shard: WriteShard, content: bytes) -> None:
    prefix = write_shard("web", [[5, EOD]] * 50)
    Path(f"{prefix}.ends.json").write_bytes(content)

    assert read_catalog(config_of(prefix)).lacks_eod.tolist() == [False]


@pytest.mark.parametrize(
    "change", [{"num_eod": 51}, {"num_eod": -1}, {"num_eod": None}, {"num_checked": 49}, {"x": 1}]
)
def test_an_inconsistent_record_is_ignored(
    write_shard: WriteShard, change: dict[str, object]
) -> None:
    prefix = write_shard("web", [[5, EOD]] * 50)
    main(["verify", str(prefix), "--eod-id", str(EOD)])
    record = Path(f"{prefix}.ends.json")
    lie = json.loads(record.read_bytes()) | {"num_eod": 0}
    record.write_bytes(damage(lie))
    believed = read_catalog(config_of(prefix)).lacks_eod.tolist()
    record.write_bytes(damage(lie | change))

    assert believed == [True]
    assert read_catalog(config_of(prefix)).lacks_eod.tolist() == [False]


def test_a_record_of_other_files_is_ignored(write_shard: WriteShard) -> None:
    prefix = write_shard("web", [[5, EOD]] * 9)
    main(["verify", str(prefix), "--eod-id", str(EOD)])
    write_shard("web", [[5, 6]] * 9)
    os.utime(f"{prefix}.bin", (7, 7))

    assert read_catalog(config_of(prefix)).lacks_eod.tolist() == [True]
    assert not read_catalog(config_of(prefix, eod_token_id=6)).lacks_eod.any()


def test_a_pipe_in_the_place_of_a_record_is_not_waited_for(write_shard: WriteShard) -> None:
    prefix = write_shard("web", [[5, EOD]] * 9)
    os.mkfifo(f"{prefix}.ends.json")

    assert read_catalog(config_of(prefix)).lacks_eod.tolist() == [False]


def test_no_record_is_written_where_none_is_wanted_or_allowed(write_shard: WriteShard) -> None:
    prefix = write_shard("web", [[5, EOD]] * 9)

    assert main(["verify", str(prefix), "--eod-id", str(EOD), "--no-record"]) == 0
    assert main(["verify", str(prefix)]) == 0
    assert not Path(f"{prefix}.ends.json").exists()


@pytest.mark.parametrize(
    ("documents", "append_eod", "role"),
    [
        ([[5, EOD], [EOD]], True, EOD_ENDS),
        ([[1, 5, EOD], [1, EOD]], True, EOD_ENDS),
        ([[EOD, 5, EOD], [EOD, 6, EOD], []], True, EOD_ENDS_AND_BEGINS),
        ([[EOD, 5], [EOD, 6]], True, EOD_ENDS_AND_BEGINS),
        ([[EOD, 5], [EOD, 6]], False, EOD_BEGINS),
        ([[EOD, 5], [7, 6]], False, EOD_ENDS),
    ],
)
def test_the_role_of_eod_in_documents(
    write_shard: WriteShard, documents: list[list[int]], append_eod: bool, role: int
) -> None:
    config = config_of(write_shard("web", documents), append_eod=append_eod, eod_mask_loss=True)

    assert read_catalog(config).eod_roles.tolist() == [role]


def test_without_intra_document_masking_documents_are_not_inspected(
    write_shard: WriteShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blendtitan.storage.ends.find_document_ends", None)

    read_catalog(config_of(write_shard("web", [[EOD, 5], [6]]), append_eod=False))

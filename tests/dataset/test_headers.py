"""A ``.bin`` of another program may begin with a header: every reader skips it."""

from pathlib import Path
from typing import Any

import pytest

from blendtitan import BlendConfig, build_datasets
from blendtitan.dataset.stretches import document_at
from blendtitan.errors import CorruptShardError
from blendtitan.prepare.merge import merge
from blendtitan.shards.repair import repair_shard
from blendtitan.shards.stats import describe
from blendtitan.shards.verify import Expected, verify
from blendtitan.storage.reader import ShardIndex
from tests.conftest import EOD, WriteBlend, WriteShard, add_header

CORPORA = {"web": (0.6, [300, 200]), "code": (0.4, [150])}


def samples(config: BlendConfig) -> list[list[int]]:
    dataset = build_datasets(config).train
    assert dataset is not None
    return [dataset[slot].input_ids.tolist() for slot in range(80)]


@pytest.mark.parametrize(
    "settings",
    [
        {"blend_sample_in_corpus": True},
        {"blend_sample_in_corpus": False},
        {"eod_token_id": 40_000},  # inserted while reading, because no document ends in it
        {"order": "blendcorpus", "train_samples": 80, "eval_samples": 0},
    ],
    ids=str,
)
def test_samples_are_those_without_a_header(
    write_blend: WriteBlend, tmp_path: Path, settings: dict[str, Any]
) -> None:
    if settings.get("order") == "blendcorpus":
        settings = settings | {"data_cache_path": tmp_path / "cache"}
    config = write_blend(CORPORA, seq_length=16, split="90,10,0", **settings)
    expected = samples(config)
    for idx_path in sorted(tmp_path.glob("*/*.idx")):
        add_header(idx_path.with_suffix(""))

    assert samples(config) == expected


def test_documents_begin_behind_the_header(write_shard: WriteShard) -> None:
    prefix = write_shard("web", [[5, 6, EOD], [7, EOD]])
    add_header(prefix)
    index = ShardIndex.open(prefix)

    assert (index.start, index.num_tokens, index.stop) == (512, 5, 517)
    assert index.document_starts(0, 2).tolist() == [512, 515, 517]
    assert [index.document_start(i) for i in range(3)] == [512, 515, 517]
    assert document_at(index, 516) == 1


def test_a_first_pointer_that_the_first_length_does_not_confirm_is_refused(
    write_shard: WriteShard,
) -> None:
    prefix = write_shard("web", [[5, 6, EOD], [7, EOD]])
    add_header(prefix)
    idx = bytearray(Path(f"{prefix}.idx").read_bytes())
    idx[34 + 8 : 34 + 16] = (1022).to_bytes(8, "little")
    Path(f"{prefix}.idx").write_bytes(idx)

    with pytest.raises(CorruptShardError, match=r"are \(1022, 0, 2\), expected"):
        ShardIndex.open(prefix)


def test_the_tools_count_only_the_tokens(write_shard: WriteShard, tmp_path: Path) -> None:
    prefix = write_shard("web/0", [[5, 6, EOD], [7, EOD]])
    add_header(prefix)

    (found,) = verify([prefix], Expected(vocab_size=10, eod_id=EOD))
    (shard,) = describe([prefix]).json()["shards"]

    assert found.problems == []
    assert found.tokens is not None
    assert (found.tokens.min_id, found.tokens.max_id, found.tokens.num_eod) == (2, 7, 2)
    assert (shard["documents"], shard["tokens"]) == (2, 5)
    assert repair_shard(prefix, eod_id=EOD) == []


def test_repair_keeps_the_header(write_shard: WriteShard) -> None:
    prefix = write_shard("web", [[5, 6, EOD], [7, EOD], [8, EOD]])
    add_header(prefix)
    right = Path(f"{prefix}.idx").read_bytes()
    idx = bytearray(right)
    idx[34 + 12 + 8 : 34 + 12 + 16] = bytes(8)  # the second pointer
    Path(f"{prefix}.idx").write_bytes(idx)

    assert len(repair_shard(prefix, eod_id=EOD)) == 1
    assert Path(f"{prefix}.idx").read_bytes() == right


def test_merged_shards_have_no_header(write_shard: WriteShard, tmp_path: Path) -> None:
    """An interrupted merge recognises them."""
    prefixes = [write_shard(f"web/{i}", [[5 + i, 6, EOD], [7, EOD]]) for i in range(2)]
    merge(prefixes, tmp_path / "plain", target_tokens=100)
    for prefix in prefixes:
        add_header(prefix)

    for _ in range(2):
        merge(prefixes, tmp_path / "merged", target_tokens=100)
    for path in sorted((tmp_path / "plain").rglob("*.*")):
        same = tmp_path / "merged" / path.relative_to(tmp_path / "plain")
        assert same.read_bytes() == path.read_bytes()

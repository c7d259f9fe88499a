"""A run that is resumed with other weights, corpora, data or lengths, on real files."""

import dataclasses
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blendtitan import BlendConfig, DataLoader, SegmentConfig, build_datasets
from blendtitan.corpus_progress import corpus_table, segments_table
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.history.run import phases_of
from tests.conftest import EOD, WriteBlend, WriteShard, numbered_documents

# Every token of a corpus but EOD is another one, so that tokens tell where they lie.
CORPORA = {"web": (0.5, [900, 700]), "code": (0.5, [400])}
OF_CODE = 100_000
"""Added to the tokens of ``code``, which would be those of ``web``."""


def loader(config: BlendConfig, **settings: Any) -> DataLoader:
    config = dataclasses.replace(config, on_change="new_segment", **settings)
    return DataLoader(build_datasets(config).train, 4)


def resumed(config: BlendConfig, before: DataLoader, **settings: Any) -> DataLoader:
    after = loader(config, **settings)
    after.load_state_dict(before.state_dict())
    return after


def read(one: DataLoader, batches: int) -> list[list[int]]:
    """The tokens of the next samples."""
    stream = iter(one)
    found: list[list[int]] = []
    for _ in range(batches):
        batch = next(stream)
        rows = torch.cat([batch.input_ids, batch.labels[:, -1:]], dim=1)
        is_code = torch.tensor([one.dataset.corpora[i] == "code" for i in batch.corpus_ids])
        rows += OF_CODE * (is_code[:, None] & (rows != EOD))
        found += rows.tolist()
    return found


@pytest.mark.parametrize("blend_sample_in_corpus", [True, False])
@pytest.mark.parametrize("shuffle_sample_in_corpus", [True, False])
@pytest.mark.parametrize("seq_length", [4, 12, 32, 40])
def test_with_another_length_no_token_of_an_epoch_is_read_twice(
    write_blend: WriteBlend,
    seq_length: int,
    shuffle_sample_in_corpus: bool,
    blend_sample_in_corpus: bool,
) -> None:
    """16 windows of 8 of each corpus, then the rest of the epochs with another length."""
    config = write_blend(
        CORPORA, seq_length=8, split="1", shuffle_sample_in_corpus=shuffle_sample_in_corpus,
        blend_sample_in_corpus=blend_sample_in_corpus,
    )  # fmt: skip
    before = loader(config)
    samples = read(before, 8)
    after = resumed(config, before, seq_length=seq_length)
    left = (400 - 1) // 8 * 8 - 16 * 8  # of the smaller corpus, whose epoch ends first
    samples += read(after, 2 * (left // seq_length) // 4)
    tokens = Counter(token for row in samples for token in row[:-1] if token != EOD)

    assert max(tokens.values()) == 1
    assert after.dataset.first_slot == 32


def test_long_windows_keep_neighbouring_text_together(write_blend: WriteBlend) -> None:
    """Most neighbours in a window of 64 are neighbours on disk, though windows of 8 were read."""
    config = write_blend({"web": (1.0, [4000])}, seq_length=8, split="1")
    before = loader(config)
    read(before, 10)
    rows = read(resumed(config, before, seq_length=64), 5)
    steps = [b - a for row in rows for a, b in pairwise(row) if EOD not in (a, b)]

    assert np.mean([step == 1 for step in steps]) > 0.95


def test_eods_inserted_while_reading_are_kept_at_another_length(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    """The row has them, so that windows of either length are cut from the same tokens."""
    documents = [document[:-1] or [9999] for document in numbered_documents("w", 0, 900)]
    write_shard("web", documents)
    (tmp_path / "list").write_text("1 web")
    row = [token for document in documents for token in [*document, EOD]]
    config = BlendConfig(
        data_file_list=tmp_path / "list", seq_length=8, eod_token_id=EOD, split="1",
        shuffle_sample_in_corpus=False,
    )  # fmt: skip
    before = loader(config)
    read(before, 5)
    rows = read(resumed(config, before, seq_length=20), 3)

    assert rows == [row[160 + 20 * i : 160 + 20 * i + 21] for i in range(12)]


def test_shards_that_are_added_do_not_start_the_others_over(write_blend: WriteBlend) -> None:
    """Also where they are put before them in the list."""
    config = write_blend(CORPORA, seq_length=8, split="1")
    before = loader(config)
    samples = read(before, 10)
    lines = Path(config.data_file_list).read_text().splitlines()
    more = write_blend({"web": (0.5, [900, 700, 800]), "code": (0.5, [400])}, seq_length=8)
    text = "\n".join(["0.2 web/web_2 web", *lines])
    Path(more.data_file_list).write_text(text)
    after = resumed(more, before, split="1")
    samples += read(after, 12)
    tokens = Counter(token for row in samples for token in row[:-1] if token != EOD)

    assert max(tokens.values()) == 1
    assert any(10_003 <= token < 15_000 for token in tokens)


def test_the_order_distinguishes_shards_of_equal_name_and_size(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    """Each continues with its own windows, although they differ only in their folders."""
    for place in range(2):
        documents = [[3 + 5000 * place + 9 * i + j for j in range(8)] + [EOD] for i in range(60)]
        write_shard(f"{place}/part", documents)
    path = tmp_path / "list"
    path.write_text("1 0/part web\n1 1/part web")
    config = BlendConfig(data_file_list=path, seq_length=8, eod_token_id=EOD, split="1")
    before = loader(config)
    samples = read(before, 10)
    path.write_text("1 0/part web\n3 1/part web")
    samples += read(resumed(config, before), 8)
    tokens = Counter(token for row in samples for token in row[:-1] if token != EOD)

    assert max(tokens.values()) == 1


def test_a_dropped_corpus_that_comes_back_continues_from_its_last_position(
    write_blend: WriteBlend,
) -> None:
    both = write_blend(CORPORA, seq_length=8, split="1")
    one = loader(both)
    samples = read(one, 8)
    text = Path(both.data_file_list).read_text()
    for kept in ("web", "web code"):
        lines = [line for line in text.splitlines() if line.split()[-1] in kept.split()]
        Path(both.data_file_list).write_text("\n".join(lines))
        one = resumed(both, one)
        samples += read(one, 5)
    tokens = Counter(token for row in samples for token in row[:-1] if token != EOD)

    assert max(tokens.values()) == 1
    assert [phase.first_slot for phase in phases_of(one.dataset)] == [0, 32, 52]
    assert one.dataset.draws_before(72).tolist() == [16 + 10, 16 + 20 + 10]


def test_the_tables_of_a_run_keep_a_corpus_that_was_dropped(write_blend: WriteBlend) -> None:
    """The first 32 of the run's 80 samples, of 8 tokens each, are half "web"."""
    both = write_blend(CORPORA, seq_length=8, split="1")
    before = loader(both)
    read(before, 8)
    lines = Path(both.data_file_list).read_text().splitlines()
    Path(both.data_file_list).write_text("\n".join(x for x in lines if x.split()[-1] == "code"))
    dataset = resumed(both, before).dataset

    assert [line.split() for line in corpus_table(dataset, 80).splitlines()[1:]] == [
        ["code", "400", "80.00%", "512", "1.28"],
        ["web", "dropped", "20.00%", "128"],
    ]
    assert [line.split() for line in segments_table(dataset).splitlines()[1:]] == [
        ["code", "50.00%", "100.00%"],
        ["web", "50.00%", "0.00%"],
    ]


def test_the_share_of_a_dropped_corpus_is_that_of_the_samples_read(
    write_blend: WriteBlend,
) -> None:
    """Of 80 slots, the first 32 are half "web", but the run leaves out slots 8 to 23 of them."""
    both = write_blend(CORPORA, seq_length=8, split="1")
    before = loader(both)
    before.set_skips([(8, 24)])
    read(before, 4)
    lines = Path(both.data_file_list).read_text().splitlines()
    Path(both.data_file_list).write_text("\n".join(x for x in lines if x.split()[-1] == "code"))
    after = loader(dataclasses.replace(both, on_change="new_segment"))
    after.set_skips([(8, 24)])
    after.load_state_dict(before.state_dict())

    assert [line.split() for line in corpus_table(after.dataset, 80).splitlines()[1:]] == [
        ["code", "400", "87.50%", "448", "1.12"],
        ["web", "dropped", "12.50%", "64"],
    ]


def test_the_draw_of_a_sample_counts_across_phases(write_blend: WriteBlend) -> None:
    config = write_blend(CORPORA, seq_length=8)
    before = loader(config)
    read(before, 3)
    after = resumed(config, before, seq_length=16)

    assert sorted(after.dataset[slot].draw for slot in (12, 13)) == [6, 6]


@pytest.mark.parametrize("changed", [{"seq_length": 12}, {"segments": (SegmentConfig(
    first_slot=20, shares={"code": 0.1}),)}], ids=str)  # fmt: skip
def test_a_changed_run_is_resumed_exactly(write_blend: WriteBlend, changed: dict[str, Any]) -> None:
    """At any later batch, with reading threads, and on another number of ranks."""
    config = write_blend(CORPORA, seq_length=8)
    before = loader(config)
    read(before, 3)
    one = resumed(config, before, **changed)
    expected = read(one, 12)
    other = resumed(config, before, **changed)
    seen = read(other, 5)
    for _ in range(3):
        again = resumed(config, other, **changed)
        seen += read(again, 2)
        other = again
    assert seen + read(other, 1) == expected
    ranks = [
        DataLoader(other.dataset, 2, dp_rank=rank, dp_world_size=2, num_workers=0)
        for rank in (0, 1)
    ]
    for rank in ranks:
        rank.load_state_dict(before.state_dict())
    found = [row for _ in range(12) for rank in ranks for row in read(rank, 1)]
    assert found == expected


def test_an_iterator_in_use_continues_with_the_changed_data(write_blend: WriteBlend) -> None:
    """What it has read ahead is of the old length."""
    config = write_blend(CORPORA, seq_length=8)
    before = loader(config)
    read(before, 3)
    after = loader(config, seq_length=16)
    stream = iter(after)
    next(stream)
    after.load_state_dict(before.state_dict())

    expected = next(iter(resumed(config, before, seq_length=16)))
    assert next(stream).input_ids.tolist() == expected.input_ids.tolist()


def test_slots_before_the_first_one_are_an_error(write_blend: WriteBlend) -> None:
    config = write_blend(CORPORA, seq_length=8)
    before = loader(config)
    read(before, 3)
    dataset = resumed(config, before, seq_length=16).dataset

    with pytest.raises(ConfigError, match="slot 11 was read with other data"):
        dataset[11]


@pytest.mark.parametrize("settings", [{"seed": 8}, {"split": "90,10,0"}, {"append_eod": False}])
def test_a_change_that_would_restart_every_corpus_is_never_accepted(
    write_blend: WriteBlend, settings: dict[str, Any]
) -> None:
    config = write_blend(CORPORA, seq_length=8)
    before = loader(config)

    with pytest.raises(ResumeError, match=r"checkpoint, or start a new run"):
        resumed(config, before, **settings)


def test_a_change_before_the_first_sample_adds_no_phase(write_blend: WriteBlend) -> None:
    config = write_blend(CORPORA, seq_length=8)
    changed = resumed(config, loader(config), seq_length=12)

    assert changed.state_dict() == loader(config, seq_length=12).state_dict()


def test_weights_in_the_same_proportions_change_nothing(write_blend: WriteBlend) -> None:
    """No new phase begins, either."""
    config = write_blend({"web": (0.3, [900, 700, 500]), "code": (0.1, [400])}, seq_length=8)
    before = loader(config)
    read(before, 6)
    scaled = write_blend({"web": (0.9, [900, 700, 500]), "code": (0.3, [400])}, seq_length=8)
    after = resumed(scaled, before)

    assert after.dataset.first_slot == 0
    assert after.state_dict() == before.state_dict()
    assert read(after, 8) == read(before, 8)


@pytest.mark.parametrize("where", ["chapters", "segments", "corpora", "seq_length"])
@pytest.mark.parametrize("value", [None, 0, "x", [], {}, [{}], {"web": None}, [[1]], 1e400])
def test_a_state_with_damaged_phases_is_refused(
    write_blend: WriteBlend, where: str, value: object
) -> None:
    config = write_blend(CORPORA, seq_length=8)
    state = json.loads(loader(config).state_dict()["blendtitan"]) | {where: value}

    with pytest.raises(ResumeError):
        DataLoader(build_datasets(config).train, 4).load_state_dict(
            {"blendtitan": json.dumps(state)}
        )

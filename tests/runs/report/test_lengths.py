"""Document lengths: all of them, or an even sample that is marked as one."""

import numpy as np
import pytest

from blendtitan.runs.open import open_run
from blendtitan.runs.report import documents
from blendtitan.runs.report.documents import corpus_lengths
from tests.conftest import EOD, WriteShard, numbered_documents
from tests.runs.conftest import WriteRun

SIZES = {"web": (0.6, [900, 700]), "code": (0.4, [450])}


def test_lengths_of_the_train_split(write_run: WriteRun) -> None:
    contents = open_run(write_run(SIZES)).contents
    assert contents is not None
    found = corpus_lengths(contents)

    assert list(found) == ["code", "web"]
    cuts = dict(zip(contents.catalog.prefixes, contents.catalog.document_cuts, strict=True))
    for name, (_, sizes) in SIZES.items():
        own = found[name]
        lens = [
            len(document)
            for place, size in enumerate(sizes)
            for prefix, (_, stop, *_) in cuts.items()
            if prefix.endswith(f"{name}_{place}")
            for document in numbered_documents(name, place, size)[:stop]
        ]
        expected, _ = np.histogram(lens, own.edges)
        assert own.num_documents == own.num_counted == len(lens)
        assert (own.quantiles[0], own.quantiles[-1]) == (min(lens), max(lens))
        assert own.fractions == pytest.approx(expected / len(lens))
        assert own.fractions.sum() == pytest.approx(1)


def test_inserted_eods_count(write_run: WriteRun, write_shard: WriteShard) -> None:
    path = write_run({"web": (1, [400])}, blendcorpus={"split": "1"})
    write_shard("web/web_0", [[5] * 7] * 100)
    contents = open_run(path).contents
    assert contents is not None

    assert corpus_lengths(contents)["web"].quantiles[1] == 8


def test_huge_corpora_are_sampled_evenly(
    write_run: WriteRun, write_shard: WriteShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents grow along the shard: blocks from its beginning alone would miss the long ones."""
    path = write_run({"web": (1, [400])}, blendcorpus={"split": "1"})
    write_shard("web/web_0", [[*[5] * (n // 10), EOD] for n in range(2000)])
    contents = open_run(path).contents
    assert contents is not None
    monkeypatch.setattr(documents, "MOST_DOCUMENTS", 200)
    found = corpus_lengths(contents)["web"]

    assert (found.num_documents, found.num_counted) == (2000, 200)
    assert found.quantiles[1] == pytest.approx(100, abs=20)
    assert found.quantiles[-1] > 190


def test_only_some_of_many_shards_are_read(
    write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run({"web": (1, [100] * 40)}, blendcorpus={"split": "1"})
    contents = open_run(path).contents
    assert contents is not None
    monkeypatch.setattr(documents, "MOST_DOCUMENTS", 160)
    opened: list[int] = []
    read = contents.document_lens
    monkeypatch.setattr(
        type(contents),
        "document_lens",
        lambda _, shard, *at: opened.append(shard) or read(shard, *at),
    )
    found = corpus_lengths(contents)["web"]

    assert len(set(opened)) == 16
    assert {0, 39} <= set(opened)
    assert 120 <= found.num_counted <= 240

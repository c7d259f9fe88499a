"""Segments of a TOML file: other shares from a step or a number of tokens on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from blendtitan.batch_schedule import BatchStage
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.settings.segments import changes_of, segment_settings
from blendtitan.state import STATE_KEY
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.toml import read_settings
from tests.small_corpora import write_corpora
from tests.titan.conftest import SEQ_LEN, Job
from tests.titan.test_dataloader import Config, build
from tests.titan.test_resume import resumed, trained

ONLY_WEB = {"from_step": 3, "shares": {"code": 0}}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_file_list=str(write_corpora(tmp_path)), split="80,20,0", num_workers=0)


def with_segments(config: Config, *tables: dict[str, Any], **settings: Any) -> Config:
    return dataclasses.replace(config, segment=list(tables), corpus_ids=True, **settings)


def corpora_of(loader: BlendCorpusDataLoader, steps: int) -> list[set[str]]:
    """The corpora of each of the next micro batches."""
    batches = iter(loader)
    return [
        {loader.dataset.corpora[i] for i in next(batches)[0]["corpus_ids"].tolist()}
        for _ in range(steps)
    ]


def first_slots(loader: BlendCorpusDataLoader) -> list[int]:
    return [segment.first_slot for segment in loader.dataset.segments]


# Where a segment begins


def test_a_segment_begins_at_its_step(config: Config) -> None:
    loader = build(with_segments(config, ONLY_WEB))
    loader.align(0, global_batch_size=4)

    assert corpora_of(loader, 5) == [{"code", "web"}] * 3 + [{"web"}] * 2


def test_a_segment_begins_at_the_first_sample_after_its_tokens(config: Config) -> None:
    loader = build(with_segments(config, {"from_tokens": 5 * SEQ_LEN + 1, "shares": {"code": 0}}))

    assert first_slots(loader) == [0, 6]


def test_a_step_takes_as_many_samples_as_the_batch_schedule_says(config: Config) -> None:
    """3 steps of 4 samples, then steps of 6: step 5 is sample 24."""
    settings = with_segments(config, {"from_step": 2, "shares": {"code": 3}}, {
        "from_step": 5, "shares": {"code": 0}})  # fmt: skip
    saved = trained(build(settings, local_batch_size=2), after=0, steps=3, global_batch_size=4)
    loader = resumed(settings, saved)
    loader.align(3, global_batch_size=6)

    assert first_slots(loader) == [0, 8, 24]
    again = resumed(settings, trained(loader, after=3, steps=1, global_batch_size=6))
    assert first_slots(again) == [0, 8, 24]


def test_tokens_count_samples_of_the_length_they_have() -> None:
    """10 samples of 8 tokens, then samples of 16: 120 tokens are 10 + 3 samples."""
    segments = segment_settings([{"from_tokens": n, "shares": {"a": 1}} for n in (0, 80, 81, 120)])
    changes = changes_of(segments, (BatchStage(global_batch_size=4),), [(0, 8), (10, 16)])

    assert [change.first_slot for change in changes] == [0, 10, 11, 13]


def test_validation_reads_the_blend_of_the_file_list(config: Config) -> None:
    """Its samples are the same ones each time."""
    loader = build(with_segments(config, ONLY_WEB | {"from_step": 0}, split_name="valid"))

    assert corpora_of(loader, 1) == [{"code", "web"}]


# What it holds


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"shares": {"web": 1}}, "segment 1: found neither from_step nor from_tokens"),
        ({"from_step": 1, "from_tokens": 1, "shares": {"web": 1}}, "from_step and from_tok"),
        ({"from_step": -1, "shares": {"web": 1}}, "from_step is -1, expected a whole number"),
        ({"from_step": 1}, r"shares are None, expected .* such as \{ web = 0\.5 \}"),
        ({"from_step": 1, "shares": {"web": -1}}, "share of 'web' is -1, expected a finite number"),
        ({"from_step": 1, "shares": {"web": float("nan")}}, "share of 'web' is nan"),
        ({"from_step": 1, "weights": {"web": 1}}, "unknown key weights. The keys are shares"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config(segment=[table])


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([{"from_step": 3, "shares": {"wbe": 1}}], "names the corpus 'wbe', expected one of code"),
        ([{"from_step": 3, "shares": {"web": 0, "code": 0}}], "leaves no corpus"),
        ([ONLY_WEB, ONLY_WEB], "begins at or before the previous segment"),
    ],
)
def test_segments_that_do_not_fit_the_corpora_are_refused(
    config: Config, tables: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(with_segments(config, *tables))


def test_a_toml_file_lists_segments(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        "[[blendcorpus.segment]]\nfrom_step = 3\nshares = { code = 0 }\n"
        '[[blendcorpus.segment]]\nfrom_tokens = 1_000\nshares = { web = 0.5, "a b" = 1 }\n'
    )
    settings = read_settings(["--job.config_file", str(path)])

    assert settings.blendcorpus.segment == [
        ONLY_WEB,
        {"from_tokens": 1000, "shares": {"web": 0.5, "a b": 1}},
    ]


def test_a_mistake_in_a_toml_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[[blendcorpus.segment]]\nfrom_step = 3\nshares = { code = -1 }\n")

    with pytest.raises(ConfigError, match=r"run\.toml: section \[blendcorpus\]: segment 1: the sh"):
        read_settings(["--job.config_file", str(path)])


# Changed on resume


@pytest.fixture
def saved(config: Config) -> BlendCorpusDataLoader:
    """A loader that gave three steps of 4 samples."""
    return trained(build(config, local_batch_size=2), after=0, steps=3, global_batch_size=4)


def test_other_segments_are_refused_with_the_way_out(
    config: Config, saved: BlendCorpusDataLoader
) -> None:
    expected = r"(?s)segments\.1: checkpoint None, now .*--blendcorpus.on_change new_segment"

    with pytest.raises(ResumeError, match=expected):
        resumed(with_segments(config, ONLY_WEB), saved)


def test_with_new_segment_the_blend_changes_at_the_checkpoint(
    config: Config, saved: BlendCorpusDataLoader, caplog: pytest.LogCaptureFixture
) -> None:
    """What the account says is logged once, with both sides of what changed."""
    settings = with_segments(config, ONLY_WEB, on_change="new_segment")
    loader = resumed(settings, saved)
    (record,) = (text for text in caplog.messages if "new segment" in text)

    assert "A new segment begins at slot 12" in record
    assert "segments.1: checkpoint None, now" in record
    assert "web: continues after 4 samples of its blend of shards" in record
    assert corpora_of(loader, 2) == [{"web"}] * 2


def test_an_earlier_change_is_resumed_silently(
    config: Config, saved: BlendCorpusDataLoader, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where a change is still allowed: nothing begins twice."""
    settings = with_segments(config, ONLY_WEB, on_change="new_segment")
    changed = trained(resumed(settings, saved), after=3, steps=2, global_batch_size=4)
    caplog.clear()
    for on_change in ("error", "new_segment"):
        loader = resumed(dataclasses.replace(settings, on_change=on_change), changed)

        assert not caplog.messages
        assert loader.state_dict() == changed.state_dict()
        assert torch.equal(next(iter(loader))[1], next(iter(resumed(settings, changed)))[1])
    chapters = json.loads(changed.state_dict()[STATE_KEY])["chapters"]
    assert [chapter["first_slot"] for chapter in chapters] == [0, 12]


@pytest.mark.slow
def test_a_run_follows_its_segments_and_continues_with_longer_windows(job: Job) -> None:
    """Two processes of the real trainer, stopped, and started with windows twice as long."""
    table = "[{ from_step = 2, shares = { code = 0 } }, { from_step = 6, shares = { code = 2 } }]"
    segments = ["--blendcorpus.segment", table]
    job.run("--training.steps", "4", *segments)
    output = job.run(
        *("--training.steps", "8", "--training.seq_len", str(2 * SEQ_LEN), *segments),
        *("--blendcorpus.on_change", "new_segment"),
    )

    assert "corpus  from slot 0  from slot 8  from slot 16  from slot 24" in output
    assert "code         66.67%        0.00%         0.00%        66.67%" in output
    assert "seq_length: checkpoint 32, now 64" in output
    assert "A new segment begins at slot 16" in output
    assert "loss of each corpus: web" in output

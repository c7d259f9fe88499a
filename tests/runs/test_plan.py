"""The plan of a run, against counting its slots one by one."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendtitan import BlendedDataset, build_datasets
from blendtitan.cli import main
from blendtitan.dataset.attention_cost import DocumentLens, attention_costs
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import ConfigError, EmptySplitError, TokenizerMismatchError
from blendtitan.identity import TokenizerIdentity
from blendtitan.runs import likely_mistakes
from blendtitan.runs.checkpoints import steps_beyond
from blendtitan.runs.open import read_run
from blendtitan.runs.plan import plan_run
from blendtitan.runs.report import page
from blendtitan.runs.report.facts import BlendCurve
from blendtitan.settings.known_models import MODELS
from tests.conftest import EOD, WriteBlend, WriteShard, write_record
from tests.runs.conftest import WriteRun

CORPORA = {"web": (0.6, [900, 700]), "code": (0.3, [450]), "books": (0.1, [300, 200])}
SEGMENTS = [
    {"from_step": 20, "shares": {"code": 0.6}},
    {"from_tokens": 8 * 8 * 50, "shares": {"books": 0}},
]


def planned(path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", str(path), "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("blend", [True, False])
def test_the_plan_equals_the_counted_slots(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str], blend: bool
) -> None:
    """A thousand slots with segments: tokens, epochs and unread tokens of each corpus."""
    path = write_run(
        CORPORA,
        training={"steps": 125},
        blendcorpus={"segment": SEGMENTS, "blend_sample_in_corpus": blend},
    )
    plan = planned(path, capsys)
    train = build_datasets(read_run(path).blend).train
    assert isinstance(train, BlendedDataset)
    slots = train.plan(np.arange(1000))
    places = slots.places
    samples = Counter(train.corpora[i] for i in slots.corpora)
    seen: dict[tuple[int, int], set[int]] = {}
    for row, epoch, window in zip(places.rows, places.epochs, places.windows, strict=True):
        seen.setdefault((int(row), int(epoch)), set()).add(int(window))

    assert plan["samples"] == 1000
    for i, corpus in enumerate(plan["corpora"]):
        name = corpus["name"]
        assert corpus["tokens_read"] == 8 * samples[name]
        assert corpus["epochs"] == pytest.approx(8 * samples[name] / corpus["tokens"])
        assert corpus["tokens"] == train.corpus_tokens[i]
        assert corpus["windows"] == train.only(name).num_windows
        assert corpus["bytes_read"] == 9 * 2 * samples[name]
        own = {row for row, c in zip(places.rows, places.corpora, strict=True) if c == i}
        read_once = sum(len(seen[int(row), 0]) for row in own)
        if all((int(row), 1) not in seen for row in own):
            left_over = corpus["tokens"] - 8 * read_once - corpus["tokens_unused"]
            assert 0 <= left_over <= 8 * len(own)


def test_epochs_are_shown_at_the_end_of_each_segment(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """The steps of an epoch are at the shares of the last one."""
    path = write_run(CORPORA, training={"steps": 125}, blendcorpus={"segment": SEGMENTS})
    plan = planned(path, capsys)
    train = build_datasets(read_run(path).blend).train
    assert train is not None

    assert [(s["first_slot"], s["stop_slot"]) for s in plan["segments"]] == [
        (0, 160), (160, 400), (400, 1000)
    ]  # fmt: skip
    last_shares = plan["segments"][2]["shares"]
    assert last_shares["books"] == 0
    for corpus in plan["corpora"]:
        share, epoch = last_shares[corpus["name"]], corpus["windows"] / 8
        expected = pytest.approx(epoch / share, rel=0.01) if share else None
        assert corpus["steps_per_epoch"] == expected
    for segment in plan["segments"]:
        draws = train.draws_before(segment["stop_slot"])
        expected = dict(zip(train.corpora, (draws * 8 / train.corpus_tokens).tolist(), strict=True))
        assert segment["epochs"] == pytest.approx(expected)


def test_the_sizes_of_the_splits_are_shown(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(CORPORA)
    plan = planned(path, capsys)
    datasets = build_datasets(read_run(path).blend)
    assert datasets.train is not None
    assert datasets.valid is not None

    train, valid, test = plan["splits"]
    assert (train["windows"], valid["windows"]) == (
        datasets.train.num_windows,
        datasets.valid.num_windows,
    )
    assert train["tokens"] + valid["tokens"] == 2550
    assert (test["documents"], test["windows"], test["corpora"]) == (0, 0, 0)
    assert plan["steps_per_epoch"] == datasets.train.num_windows / 8


# Warnings


def warned(path: Path, **options: Any) -> str:
    return "\n".join(plan_run(read_run(path, **options)).warnings)


def test_a_plan_without_anything_wrong_has_no_warnings(write_run: WriteRun) -> None:
    path = write_run({"web": (1, [9000])}, training={"steps": 130})

    assert warned(path) == ""


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"training": {"steps": 1000}}, "corpora would be read more often than max_epochs = 4"),
        ({"validation": {"enable": True}}, "the valid split has 26 samples, fewer than 100"),
        (
            {"validation": {"enable": True}, "training": {"global_batch_size": 64}},
            "the valid split has 26 samples, fewer than a global batch of 64",
        ),
        (
            {"validation": {"enable": True}, "blendcorpus": {"split": "1,0,0"}},
            "no corpus has documents in the valid split",
        ),
        (
            {"training": {"seq_len": 100}, "validation": {"enable": True}},
            "in the valid split, 5 of 5 shards have fewer than training.seq_len + 1 = 101 tokens",
        ),
        ({"training": {"seq_len": 500}}, "3 of 5 shards have fewer than training.seq_len"),
        ({"training": {"seq_len": 200_000}}, "at most 131,072 (RoPE). Training would stop"),
    ],
)  # fmt: skip
def test_likely_mistakes_are_warnings(
    write_run: WriteRun, sections: dict[str, dict[str, Any]], expected: str
) -> None:
    assert expected in warned(write_run(CORPORA, **sections))


def test_another_model_or_torchtitan_may_read_longer_samples(
    write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, long = {"name": "mine", "flavor": "tiny"}, {"seq_len": 200_000}

    assert "RoPE" not in warned(write_run(CORPORA, training=long, model=own))
    monkeypatch.setattr(likely_mistakes, "TORCHTITAN", "9.9.9")
    assert "RoPE" not in warned(write_run(CORPORA, training=long))


def test_validation_sets_are_rows_and_their_faults_are_warnings(
    write_run: WriteRun, write_blend: WriteBlend
) -> None:
    books = write_blend({"books": (1, [80])}, seq_length=8)
    sets = [
        {"name": "held-out", "path": str(books.data_file_list)},
        {"name": "gone", "path": "gone.txt"},
        {"name": "same", "path": str(Path(books.data_file_list).parent / "web")},
    ]
    path = write_run({"web": (1, [9000])}, validation={"enable": True, "set": sets})
    plan = plan_run(read_run(path))
    gone, same = plan.warnings

    assert (plan.splits[-1].name, plan.splits[-1].tokens) == ("held-out", 80)
    assert re.match(
        r"validation set 'gone': \S+gone\.txt: there is no such file or folder\. T", gone
    )
    assert "validation set 'same': shard" in same
    assert all(
        w.endswith("Training would stop at its start with this error.") for w in (gone, same)
    )


def test_a_plan_logs_nothing_but_its_warnings(
    write_run: WriteRun, caplog: pytest.LogCaptureFixture
) -> None:
    """A valid split of less than a window is a warning of the plan."""
    path = write_run(
        {"web": (1.0, [900])}, training={"seq_len": 32}, blendcorpus={"split": "99,1,0"}
    )
    plan = plan_run(read_run(path))

    assert 0 < plan.splits[1].tokens < 32
    assert not caplog.records


def test_corpora_that_are_not_validated_are_named(write_run: WriteRun) -> None:
    path = write_run({"web": (1, [900]), "tiny": (1, [9])}, validation={"enable": True})

    assert "no documents for validation, so excluded from it: tiny" in warned(path)


@pytest.mark.parametrize(
    ("append_eod", "expected"),
    [
        (True, "the documents of 1 of 2 shards do not end in EOD (2): it is inserted"),
        (False, "append_eod is false, and the documents of 1 of 2 shards do not end in EOD (2)"),
    ],
)
def test_documents_without_eod_are_a_warning(
    write_run: WriteRun, write_shard: WriteShard, append_eod: bool, expected: str
) -> None:
    path = write_run({"web": (1, [900, 300])}, blendcorpus={"append_eod": append_eod})
    write_shard("web/web_1", [[5, 6, 7], [8, 9]] * 40)

    assert expected in warned(path)


def test_a_mixture_of_documents_with_and_without_eod_is_a_warning(
    write_run: WriteRun, write_shard: WriteShard
) -> None:
    path = write_run({"web": (1, [900])}, blendcorpus={"append_eod": False})
    write_shard("web/web_0", [[5, 6, 7], [8, EOD]] * 40)

    assert "append_eod is false, and" in warned(path)
    assert "40 of 80 documents end in EOD" in warned(path)


def test_a_token_type_too_small_for_the_vocabulary_is_a_warning(
    write_run: WriteRun, write_shard: WriteShard
) -> None:
    path = write_run({"web": (1, [900, 300])})
    write_shard("web/web_1", [[5, 6, EOD]] * 40, dtype="u1")

    assert "the tokenizer has 20,000 ids, but 1 of 2 shards hold no id above 255 (uint8)" in warned(
        path
    )


def test_a_missing_tokenizer_is_a_warning(write_run: WriteRun) -> None:
    """The plan does not need it if EOD is configured."""
    missing = {"model": {"tokenizer_path": "nowhere"}}
    path = write_run(CORPORA, **missing, blendcorpus={"eod_token_id": EOD})

    assert "the tokenizer cannot be used, so token types were not compared" in warned(path)
    with pytest.raises(ConfigError, match="nowhere"):
        read_run(write_run(CORPORA, **missing))


# Which run


def test_a_run_folder_gives_the_settings_of_its_configuration(
    write_run: WriteRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(CORPORA)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.toml").write_text(path.read_text())
    one, other = planned(path, capsys), planned(tmp_path / "out", capsys)

    assert one | {"config": ""} == other | {"config": ""}
    with pytest.raises(ConfigError, match=r"this folder has no config\.toml"):
        read_run(tmp_path)


def test_the_number_of_ranks_is_required_if_steps_depend_on_it(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(CORPORA, training={"global_batch_size": -1})

    assert planned(path, capsys, "--ranks", "3")["global_batch_size"] == 6
    assert main(["plan", str(path)]) == 1
    assert "ranks with --ranks, or set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sections", "ranks", "expected"),
    [
        (
            {},
            3,
            r"run\.toml: training\.global_batch_size is 8, expected a multiple of 6 .*Nearest: 6",
        ),
        ({"training": {"global_batch_size": 5}}, None, "is 5, expected a multiple of 2"),
        ({"parallelism": {"data_parallel_replicate_degree": 3}}, None, "multiple of 6"),
        ({"parallelism": {"data_parallel_replicate_degree": 3}}, 4, "--ranks is 4, expected a mul"),
        ({"training": {"global_batch_size": 0}}, None, "is 0, expected a multiple of 2"),
    ],
)
def test_a_global_batch_that_training_refuses_is_refused(
    write_run: WriteRun, sections: dict[str, Any], ranks: int | None, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        read_run(write_run(CORPORA, **sections), ranks=ranks)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"training": {"steps": 10**30}}, r"training\.steps is 1,000,.*, expected a whole number"),
        ({"training": {"steps": 10**18}}, r"training\.steps is 1,000,.*, expected at most 125,000"),
        (
            {"training": {"steps": -1}},
            r"training\.steps is -1, expected a whole number of at least 0",
        ),
        (
            {"blendcorpus": {"split": "inf,1,1"}},
            "split is 'inf,1,1', expected three finite numbers",
        ),
        ({"blendcorpus": {"split": "1e308,1e308,1"}}, "expected three finite numbers"),
        (
            {"validation": {"samples": -5}},
            r"validation\.samples is -5, expected a whole number of at",
        ),
        ({"validation": {"steps": 0}}, r"validation\.steps is 0, expected at least 1, or -1"),
        (
            {"blendcorpus": {"segment": [{"from_step": 10**17, "shares": {"web": 1}}]}},
            "segment 1 begins at sample 800,",
        ),
    ],
)
def test_numbers_out_of_range_are_one_error(
    write_run: WriteRun,
    capsys: pytest.CaptureFixture[str],
    sections: dict[str, Any],
    expected: str,
) -> None:
    assert main(["plan", str(write_run(CORPORA, **sections))]) == 1

    assert re.search(expected, capsys.readouterr().err)


def test_an_error_names_the_command_line_for_a_value_from_there(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(CORPORA)
    words = ["--blendcorpus.split", "90,5,6,7"]

    assert main(["plan", str(path), *words]) == 1
    expected = "blendtitan plan: command line: blendcorpus.split is '90,5,6,7', which has 4 numbers"
    assert capsys.readouterr().err.startswith(expected)
    path = write_run(CORPORA, blendcorpus={"split": "90,5,6,7"})
    assert main(["plan", str(path)]) == 1
    assert f"{path}: split is '90,5,6,7', which has 4" in capsys.readouterr().err


def test_a_wrong_key_of_a_table_is_named_with_its_file(write_run: WriteRun) -> None:
    path = write_run(CORPORA, validation={"set": [{"name": "a", "path": "b", "sample": 1}]})

    with pytest.raises(ConfigError, match=r"\.toml: validation\.set 1: .* Did you mean samples\?"):
        read_run(path)


def test_old_spellings_are_read(write_run: WriteRun) -> None:
    path = write_run(CORPORA, training={"global_batch_size": -1})
    text = path.read_text().replace("local_batch_size", "batch_size")
    path.write_text(text + "\nshuffle = false\n")
    run = read_run(path, ranks=2)

    assert run.micro_batch == 2
    assert not run.blend.shuffle_sample_in_corpus


def test_ranks_of_a_pipeline_read_its_parts_of_a_micro_batch(write_run: WriteRun) -> None:
    parts = {"pipeline_parallel_degree": 2, "pipeline_parallel_microbatch_size": 1}

    assert read_run(write_run(CORPORA, parallelism=parts)).micro_batch == 1


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"sed": 3}, r"unknown key blendcorpus\.sed\. Did you mean blendcorpus\.seed\?"),
        ({"seed": "3"}, r"blendcorpus\.seed is '3', expected a whole number"),
        ({"seq_length": 16}, "is 16, expected 8, the value of training.seq_len"),
        ({"micro_batch_size": 3}, "is 3, expected 2, the value of training.local_batch_size"),
        ({"segment": [{"from_step": 3}]}, "segment 1: shares are None"),
    ],
)
def test_settings_that_the_trainer_refuses_are_refused(
    write_run: WriteRun, section: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        read_run(write_run(CORPORA, blendcorpus=section))


def test_a_run_without_a_blend_is_refused(write_run: WriteRun) -> None:
    with pytest.raises(ConfigError, match="'c4', which TorchTitan reads"):
        read_run(write_run(CORPORA, training={"dataset": "c4"}))
    with pytest.raises(EmptySplitError, match="leaves no training data"):
        plan_run(read_run(write_run(CORPORA, blendcorpus={"split": "0,1,1"})))


def test_the_originals_order_is_planned_without_unused_tokens(
    write_run: WriteRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no rows, so the number of unused tokens is unknown."""
    order = {"order": "blendcorpus", "data_cache_path": str(tmp_path / "cache")}
    path = write_run(CORPORA, blendcorpus=order, training={"global_batch_size": 8, "steps": 20})
    plan = planned(path, capsys)
    train = build_datasets(read_run(path).blend).train
    assert train is not None

    read = [corpus["tokens_read"] for corpus in plan["corpora"]]
    assert read == train.tokens_before(160).tolist()
    assert {corpus["tokens_unused"] for corpus in plan["corpora"]} == {None}
    assert plan["bytes_read"] == 160 * 9 * 2


# The command


def test_the_command_prints_tables_and_warnings(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(CORPORA, training={"steps": 125}, blendcorpus={"segment": SEGMENTS})

    assert main(["plan", str(path)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("125 steps of 8 samples of 8 tokens: 1,000 samples, 8,000 tokens")
    assert re.fullmatch(
        r"In the train split, all corpora together have windows for [\d.]+ steps\.", lines[1]
    )
    assert [line.split()[0] for line in lines if line][2:6] == ["corpus", "books", "code", "web"]
    assert "after step 20" in captured.out
    assert "after step 50" in captured.out
    assert "Warnings:" in lines
    assert captured.err == ""


# --- the tokenizer ------------------------------------------------------------------------------


def test_a_plan_refuses_shards_of_another_tokenizer(
    write_run: WriteRun, word_identity: TokenizerIdentity, tmp_path: Path
) -> None:
    path = write_run({"web": (1.0, [500])})
    other = replace(word_identity, hash="1:0123", name="other/tokenizer.json")
    write_record(tmp_path / "web/web_0", other)

    with pytest.raises(TokenizerMismatchError, match=r"1 of 1 shards(?s:.*)other/tokenizer.json"):
        plan_run(read_run(path))


def test_a_plan_warns_of_another_tokenizer_if_training_would(
    write_run: WriteRun, word_identity: TokenizerIdentity, tmp_path: Path
) -> None:
    path = write_run({"web": (1.0, [500])}, blendcorpus={"tokenizer_check": "warn"})
    other = replace(word_identity, hash="1:0123", name="other/tokenizer.json")
    write_record(tmp_path / "web/web_0", other)

    assert any("1 of 1 shards do not belong" in text for text in plan_run(read_run(path)).warnings)


def test_a_plan_without_a_usable_tokenizer_warns_that_nothing_was_compared(
    write_run: WriteRun, tmp_path: Path
) -> None:
    path = write_run(
        {"web": (1.0, [500])},
        model={"tokenizer_path": str(tmp_path / "gone")},
        blendcorpus={"eod_token_id": 2},
    )

    assert any("were not compared" in text for text in plan_run(read_run(path)).warnings)


def test_skipped_steps_are_shown_and_do_not_count_as_read(write_run: WriteRun) -> None:
    """10 steps of 8 samples are trained, whatever is skipped; step 4 begins after the skip."""
    segment = {"from_step": 3, "shares": {"web": 1}}
    skip = {"from_step": 3, "to_step": 4}
    run = read_run(write_run(CORPORA, blendcorpus={"skip": [skip], "segment": [segment]}))
    plan = plan_run(run)
    shown = "\n".join(map(str, plan.lines()))

    assert (run.num_samples, run.stop_slot) == (80, 96)
    assert [(s.first_slot, s.steps_before) for s in plan.segments] == [(0, 0), (40, 3)]
    assert sum(corpus.tokens_read for corpus in plan.corpora) == 80 * 8
    assert "- slots 16 to 31 (steps 3 to 4)" in shown
    assert plan.json()["skipped"] == [
        {"first_slot": 16, "stop_slot": 32, "from_step": 3, "to_step": 4}
    ]


GROWING = [{"from_step": 4, "global_batch_size": 16}]
"""4 steps of 8 samples, then steps of 16."""


def test_an_epoch_takes_as_many_steps_as_train_on_its_samples(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """Skipped slots are not trained on, even if they are more than an epoch has."""
    skip = [{"from_slot": 4, "to_slot": 999}]
    path = write_run(CORPORA, training={"batch_schedule": GROWING}, blendcorpus={"skip": skip})
    plan = planned(path, capsys)
    web = next(corpus for corpus in plan["corpora"] if corpus["name"] == "web")

    assert plan["steps_per_epoch"] == 4 + (plan["splits"][0]["windows"] - 4 * 8) / 16
    assert web["steps_per_epoch"] == 4 + (round(web["windows"] / 0.6) - 4 * 8) / 16


def test_the_batch_schedule_is_shown(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only changes within the run; a skip changes no size."""
    later = {"from_step": 99, "global_batch_size": 4}
    training = {"batch_schedule": [*GROWING, later]}
    skip = [{"from_slot": 4, "to_slot": 9}]
    plan = planned(write_run(CORPORA, training=training, blendcorpus={"skip": skip}), capsys)
    first = {"from_step": 0, "global_batch_size": 8}

    assert plan["batch_schedule"] == [first, *GROWING]
    assert plan["samples"] == 4 * 8 + 6 * 16
    assert planned(write_run(CORPORA), capsys)["batch_schedule"] == [first]


def test_the_picture_reaches_to_the_last_step(
    write_run: WriteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip = [{"from_step": 2, "to_step": 9}]
    path = write_run(CORPORA, blendcorpus={"skip": skip})
    curves: list[BlendCurve | None] = []
    monkeypatch.setattr(page, "write_page", lambda page, path, **_: curves.append(page.curve) or 0)
    assert main(["plan", str(path), "--picture", str(tmp_path / "blend.html")]) == 0
    (curve,) = curves

    assert curve is not None
    assert curve.bin_steps[-1] == 10
    assert curve.bin_samples.sum() == 80


MASKED = {"provide_attention_mask": True}


def test_the_plan_predicts_how_long_ranks_wait(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows of 64 tokens of documents of 1 to 9: against the costs, added up rank by rank."""
    path = write_run(
        CORPORA, training={"steps": 9, "local_batch_size": 1, "seq_len": 64}, blendcorpus=MASKED
    )
    found = planned(path, capsys, "--balance", "--ranks", "4")["waiting"]
    train = build_datasets(read_run(path).blend).train
    assert isinstance(train, BlendedDataset)
    costs = attention_costs(train, np.arange(72), DocumentLens.read(train.rows))
    costs += 64 * MODELS["llama3"]["debugmodel"].linear_cost
    slowest = costs.reshape(-1, 4).max(axis=1).sum()

    assert (found["micro_batches"], found["steps"]) == ([2], 9)
    assert found["before"] == pytest.approx(1 - costs.sum() / (4 * slowest))
    assert 0 < found["after"] < found["before"]

    main(["plan", str(path), "--balance", "--ranks", "4"])
    line = "Ranks wait for the slowest one 0.0% of the time without balance, 0.0% with it: 4 ranks"
    assert line in capsys.readouterr().out


def test_waiting_is_that_of_the_steps_that_are_trained(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """4 steps of 8 samples and 2 of 16, without slots 4 to 21, added up rank by rank."""
    training = {"steps": 6, "local_batch_size": 1, "seq_len": 64, "batch_schedule": GROWING}
    skip = [{"from_slot": 4, "to_slot": 21}]
    path = write_run(CORPORA, training=training, blendcorpus=MASKED | {"skip": skip})
    found = planned(path, capsys, "--balance", "--ranks", "4")["waiting"]
    train = build_datasets(read_run(path).blend).train
    assert isinstance(train, BlendedDataset)
    slots = np.array([*range(4), *range(22, 82)])
    costs = attention_costs(train, slots, DocumentLens.read(train.rows))
    costs += 64 * MODELS["llama3"]["debugmodel"].linear_cost
    slowest = costs.reshape(-1, 4).max(axis=1).sum()

    assert (found["micro_batches"], found["steps"]) == ([2, 4], 6)
    assert found["before"] == pytest.approx(1 - costs.sum() / (4 * slowest))

    main(["plan", str(path), "--balance", "--ranks", "4"])
    assert "4 ranks, 2, then 4 x 1 sample of each in a step" in capsys.readouterr().out


def test_waiting_needs_ranks_and_documents_that_masks_separate(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(CORPORA)

    assert main(["plan", str(path), "--balance"]) != 0
    assert "expected --ranks with it" in capsys.readouterr().err
    assert main(["plan", str(path), "--balance", "--ranks", "4"]) != 0
    error = capsys.readouterr().err
    assert "needs provide_attention_mask = true" in error
    assert "Set it to true, or leave out --balance" in error


STAGING = {"data_stage_path": "/local/stage", "data_stage_bytes": 1 << 24, "max_epochs": 0}


def test_the_plan_predicts_what_a_node_fetches(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """One node of four ranks reads small shards several times; four nodes read a quarter each."""
    training = {"steps": 200, "local_batch_size": 1, "seq_len": 8}
    path = write_run(CORPORA, training=training, blendcorpus=STAGING | {"split": "1"})
    alone = planned(path, capsys, "--ranks", "4", "--nodes", "1")["staging"]
    of_four = planned(path, capsys, "--ranks", "4", "--nodes", "4")["staging"]
    catalog = read_catalog(read_run(path).blend)
    shard_bytes = int(catalog.token_cuts[:, 3].sum()) * 2

    assert alone["bytes_read"] == 200 * 8 * 9 * 2
    assert (alone["bytes_blocks"], alone["bytes_windows"]) == (shard_bytes, 0)
    assert of_four["bytes_read"] == 200 * 2 * 9 * 2
    assert of_four["bytes_blocks"] + of_four["bytes_windows"] <= 1.15 * of_four["bytes_read"]

    main(["plan", str(path), "--ranks", "4", "--nodes", "1"])
    assert "Staging: the node with 4 ranks fetches" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("blendcorpus", "words", "expected"),
    [
        ({}, ["--ranks", "4", "--nodes", "2"], "data_stage_path is not set"),
        (STAGING, ["--nodes", "2"], "expected --ranks with it"),
        (STAGING, ["--ranks", "4", "--nodes", "3"], "--nodes is 3, expected a divisor of 4"),
        (STAGING | {"data_stage_bytes": 9}, ["--ranks", "4", "--nodes", "2"], "at least 4,194,304"),
        ({"data_stage_bytes": 9}, [], "data_stage_bytes is set, but data_stage_path is not"),
        (STAGING | {"data_stage_path": "s3://a"}, [], "which is a URL, expected a local path"),
        (STAGING | {"data_stage_path": ""}, [], "data_stage_path is '', expected a path"),
        ({"data_stage_path": ""}, [], "data_stage_path is set, but data_stage_bytes is not"),
        (STAGING | {"order": "blendcorpus"}, [], "data_stage_path needs order"),
    ],
)
def test_staging_needs_a_disk_and_nodes(
    write_run: WriteRun,
    capsys: pytest.CaptureFixture[str],
    blendcorpus: dict[str, Any],
    words: list[str],
    expected: str,
) -> None:
    path = write_run(CORPORA, training={"local_batch_size": 1}, blendcorpus=blendcorpus)

    assert main(["plan", str(path), *words]) != 0
    assert expected in capsys.readouterr().err


def test_keys_on_the_command_line_override_the_file(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """``train`` takes them, so a plan of the same words is the plan of that run."""
    assert main(["plan", str(write_run(CORPORA)), "--training.steps", "25", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["steps"] == 25


def test_a_checkpoint_beyond_the_configured_steps_is_a_warning(
    write_run: WriteRun, tmp_path: Path
) -> None:
    """The run was trained further with ``--training.steps``, which the file does not hold."""
    output = tmp_path / "outputs"
    run = read_run(write_run(CORPORA, job={"dump_folder": str(output)}))
    for step in (5, run.steps, 60):
        assert not steps_beyond(run.path, output, run.steps)
        (output / f"checkpoint/step-{step}").mkdir(parents=True)

    warning = steps_beyond(run.path, output, run.steps)
    assert f"training.steps is 10, but {output} has a checkpoint of step 60" in warning
    assert warning.endswith("--training.steps 60")
    assert warning in plan_run(run).warnings
    used = output / "config.toml"
    used.write_text(run.path.read_text())
    named = f"--training.steps 60, or name the folder with the keys that it used: {output}"
    assert steps_beyond(run.path, output, run.steps).endswith(named)
    assert steps_beyond(used, output, run.steps) == warning  # it is already named
    other = replace(run, output=tmp_path / "other")
    assert not any("checkpoint of step" in each for each in plan_run(other).warnings)


def test_an_unknown_corpus_of_a_segment_is_named_with_its_place(write_run: WriteRun) -> None:
    segments = [{"from_step": 2, "shares": {"web": 1}}, {"from_step": 5, "shares": {"boks": 1}}]
    path = write_run(CORPORA, blendcorpus={"segment": segments})

    message = rf"^{path}: \[\[blendcorpus.segment\]\] 2 \(from_step = 5\) names .* mean books\?$"
    with pytest.raises(ConfigError, match=message):
        plan_run(read_run(path))

"""The facts of a report, against the plan, the order and the logged metrics."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from blendtitan.errors import ConfigError
from blendtitan.runs.open import read_run
from blendtitan.runs.plan import plan_run
from blendtitan.runs.predictions import Asked
from blendtitan.runs.report.documents import OF_EACH
from blendtitan.runs.report.facts import gather_run, gather_runs
from blendtitan.runs.report.page import summary
from tests.conftest import EOD, WriteShard
from tests.runs.conftest import WriteRun
from tests.runs.report.conftest import CORPORA, TrainedRun
from tests.runs.test_explain import trained


def test_a_configuration_is_a_run_that_has_not_begun(write_run: WriteRun) -> None:
    """Its numbers are those of the plan."""
    path = write_run(CORPORA, training={"steps": 40})
    facts, plan = gather_run(path, name="run"), plan_run(read_run(path))
    planned = {corpus.name: corpus for corpus in plan.corpora}

    assert (facts.reached_step, facts.last_step, facts.num_samples) == (0, 40, 320)
    assert not facts.metrics
    assert len(facts.corpora) == 3
    for corpus in facts.corpora:
        own = planned[corpus.name]
        assert corpus.tokens_read == 0
        assert corpus.epochs_at_end == own.tokens_read / own.tokens
        assert corpus.epochs_at_end == pytest.approx(own.epochs)
        assert corpus.configured == pytest.approx(own.share)
        assert (corpus.shards, corpus.documents) == (own.shards, own.documents)
        assert corpus.tokens == own.tokens


def test_the_progress_of_a_run_is_that_of_its_checkpoint_and_metrics(
    trained_run: TrainedRun,
) -> None:
    """Before the change 60 % of 40 samples are of the web, then 82 % of 40."""
    facts = gather_run(trained_run("run"), name="run")
    web = next(corpus for corpus in facts.corpora if corpus.name == "web")

    assert (facts.reached_step, facts.last_step, facts.num_samples) == (20, 40, 160)
    assert web.configured == pytest.approx((0.6 + 1.8 / 2.2) / 2)
    assert abs(web.achieved - web.configured) < 2 / 80
    assert web.tokens_read == 8 * 80 * web.achieved
    assert web.epochs_at_end > web.epochs
    assert facts.metrics["loss_metrics/global_avg_loss"].steps.tolist() == list(range(1, 21))


def test_waiting_is_a_part_of_the_time_that_samples_took(trained_run: TrainedRun) -> None:
    """4 samples at 4 a second: a second each step, a quarter of it waited."""
    assert gather_run(trained_run("run"), name="run").waited == pytest.approx(0.25)


def test_tokens_per_second_are_the_samples_in_tokens(trained_run: TrainedRun) -> None:
    """4 samples of 8 tokens per second."""
    speeds = gather_run(trained_run("run"), name="run").metrics["data/tokens_per_second"]

    assert speeds.steps.tolist() == list(range(1, 21))
    assert speeds.values.tolist() == [32.0] * 20


def test_a_run_may_have_metrics_and_no_checkpoint(trained_run: TrainedRun) -> None:
    folder = trained_run("run")
    shutil.rmtree(folder / "checkpoint")
    facts = gather_run(folder, name="run")

    assert (facts.reached_step, facts.last_step) == (20, 40)
    assert facts.about.endswith("assuming that it was never changed")


def test_a_run_may_have_checkpoints_and_no_metrics(trained_run: TrainedRun) -> None:
    folder = trained_run("run")
    shutil.rmtree(folder / "tb")
    facts = gather_run(folder, name="run")

    assert (facts.reached_step, facts.waited) == (20, None)
    assert not facts.metrics


def test_mfu_of_a_cpu_is_left_out(trained_run: TrainedRun) -> None:
    """Older releases logged it, as a small part of an A100's peak."""
    folder = trained_run("run", mfu=0.02)

    assert "mfu(%)" not in gather_run(folder, name="run").metrics


def test_without_the_data_the_rest_is_reported(trained_run: TrainedRun, tmp_path: Path) -> None:
    folder = trained_run("run")
    shutil.rmtree(tmp_path / "web")
    facts = gather_run(folder, name="run")

    assert "the data cannot be read" in facts.about
    assert not facts.lengths
    assert facts.corpora[0].shards is None
    assert facts.samples[-1].corpus == "web"
    assert facts.samples[-1].passages[0].place == "9 tokens, not available"


def test_samples_are_those_of_the_order_with_their_places(write_run: WriteRun) -> None:
    """The first ones of each corpus from the step on."""
    facts = gather_run(write_run(CORPORA, training={"steps": 40}), name="run", step=5)
    corpora = [sample.corpus for sample in facts.samples]

    assert corpora == [name for name in sorted(CORPORA) for _ in range(OF_EACH)]
    for sample in facts.samples:
        assert int(sample.place.split()[1].rstrip(",")) >= 5
        assert sample.passages[0].shard.endswith(("_0", "_1"))
        assert sample.passages[0].place.startswith("document ")
        assert sample.passages[0].is_text


def test_three_of_many_documents_in_a_sample_are_shown(
    write_run: WriteRun, write_shard: WriteShard
) -> None:
    path = write_run({"web": (1, [400])}, blendcorpus={"shuffle_sample_in_corpus": False})
    write_shard("web/web_0", [[5, EOD]] * 200)
    first, *_ = gather_run(path, name="run").samples

    assert [passage.content for passage in first.passages] == ["w5"] * 3
    assert first.num_more == 2


def test_without_a_tokenizer_samples_are_token_ids(write_run: WriteRun, tmp_path: Path) -> None:
    path = write_run(
        CORPORA,
        model={"tokenizer_path": str(tmp_path / "nowhere")},
        blendcorpus={"eod_token_id": 2},
    )
    passages = [p for sample in gather_run(path, name="run").samples for p in sample.passages]

    assert not any(passage.is_text for passage in passages)
    assert all(passage.content.replace(" ", "").isdecimal() for passage in passages)


def test_an_invalid_step_is_refused(write_run: WriteRun) -> None:
    with pytest.raises(ConfigError, match="step is 0, expected at least 1"):
        gather_run(write_run(CORPORA), name="run", step=0)


def test_runs_are_called_by_their_folders_unless_these_are_alike(trained_run: TrainedRun) -> None:
    a, b = trained_run("a"), trained_run("b")
    same = trained_run("more/a")

    assert [run.name for run in gather_runs([a, b])] == ["a", "b"]
    assert [run.name for run in gather_runs([a, same])] == [str(a), str(same)]


def test_a_run_that_init_made_is_called_by_its_own_folder(trained_run: TrainedRun) -> None:
    """The output of each is in a folder called "outputs"."""
    first, second = trained_run("first/outputs"), trained_run("second/outputs")
    runs = gather_runs([first, second / "config.toml"])

    assert [run.name for run in runs] == ["first", "second"]


def test_a_run_that_skips_steps_is_reported(write_run: WriteRun) -> None:
    """Sample texts are those of slots that it trains on."""
    skip = [{"from_step": 1, "to_step": 3}]
    facts = gather_run(write_run(CORPORA, blendcorpus={"skip": skip}), name="run")
    more = gather_run(
        write_run(CORPORA, blendcorpus={"skip": [{"from_slot": 30, "to_slot": 50}]}), name="run"
    )
    slots = [[int(s.place.split()[3].rstrip(",")) for s in run.samples] for run in (facts, more)]

    assert (facts.num_samples, facts.last_step) == (80, 10)
    assert min(slots[0]) >= 24
    assert not {*slots[1]} & {*range(30, 51)}
    assert summary(facts)["skipped"] == "slots 0 to 23 (steps 1 to 3)"


def test_sizes_are_those_of_the_run(trained_run: TrainedRun) -> None:
    """Its steps had 4 samples, even if its file says otherwise, or leaves it to the ranks."""
    folder = trained_run("run")
    config = folder / "config.toml"
    text, sizes = config.read_text(), list[str]()
    for size in (4, 6, -1):
        config.write_text(text.replace("global_batch_size = 4", f"global_batch_size = {size}"))
        sizes.append(summary(gather_run(folder, name="run"))["samples per step"])

    assert sizes == ["4", "4", "4"]


def test_the_windows_of_a_changed_run_have_several_lengths(
    write_run: WriteRun, tmp_path: Path
) -> None:
    path = write_run(CORPORA, training={"steps": 40})
    config = read_run(path).blend
    longer = dataclasses.replace(config, seq_length=12)
    trained(tmp_path / "run/checkpoint", [config, longer], steps=10)
    (tmp_path / "run/config.toml").write_text(path.read_text())

    assert summary(gather_run(tmp_path / "run", name="run"))["sequence length"] == "8, then 12"


def test_a_change_that_keeps_the_length_of_windows_adds_no_length(trained_run: TrainedRun) -> None:
    assert summary(gather_run(trained_run("run"), name="run"))["sequence length"] == "8"


def test_a_balanced_run_shows_how_long_its_ranks_wait(write_run: WriteRun) -> None:
    """As the plan predicts it; without a number of ranks it says how to ask."""
    balanced = {"provide_attention_mask": True, "balance": "attention"}
    path = write_run(CORPORA, training={"local_batch_size": 1}, blendcorpus=balanced)
    plan = plan_run(read_run(path), asked=Asked(ranks=4, waiting=True))
    shown = str(plan.predictions["waiting"])

    assert gather_run(path, name="run", ranks=4).waiting == shown
    assert "--ranks" in gather_run(path, name="run").waiting
    assert gather_run(write_run(CORPORA), name="run", ranks=4).waiting == ""

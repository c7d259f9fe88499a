"""The plan of a run that has a checkpoint, against the samples that it then reads."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.batch_schedule import BatchStage, saved_schedule
from blendtitan.cli import main
from blendtitan.runs.open import read_run
from blendtitan.settings.overrides import read_run_keys
from tests.runs.conftest import WriteRun
from tests.runs.test_audit import save

CORPORA = {"web": (0.6, [900, 700]), "code": (0.3, [450]), "books": (0.1, [300, 200])}
CHANGED = {"web": (0.2, [900, 700]), "code": (0.6, [450]), "news": (0.2, [1000])}

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def write(write_run: WriteRun, tmp_path: Path) -> WriteRun:
    """``write_run`` with an output folder, and 30 steps."""

    def write(corpora: dict[str, Any], on_change: str = "error", **training: int) -> Path:
        return write_run(
            corpora,
            job={"dump_folder": str(tmp_path / "outputs")},
            checkpoint={"enable": True},
            training={"steps": 30} | training,
            blendcorpus={"on_change": on_change},
        )

    return write


def train(config: BlendConfig, folder: Path, *, steps: range, size: int = 8) -> Counter[str]:
    """Samples of each corpus that a run reads in some steps, after which it saves a checkpoint."""
    loader = DataLoader(build_datasets(config).train, size, num_workers=0)
    if steps.start:
        loader.load_state_dict(json.loads((folder / "state.json").read_text()))
    batches = iter(loader)
    names = [loader.dataset.corpora[i] for _ in steps for i in next(batches).corpus_ids.tolist()]
    state = loader.state_dict(more=saved_schedule((BatchStage(global_batch_size=size),)))
    save(folder / "outputs/checkpoint", steps.stop, state)
    (folder / "state.json").write_text(json.dumps(state))
    return Counter(names)


def plan(path: Path, capsys: Capture, *words: str) -> dict[str, Any]:
    assert main(["plan", str(path), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def read_of(plan: dict[str, Any]) -> dict[str, int]:
    return {corpus["name"]: corpus["tokens_read"] // 8 for corpus in plan["corpora"]}


def test_a_changed_run_is_planned_with_what_it_has_read_before(
    write: WriteRun, tmp_path: Path, capsys: Capture
) -> None:
    """Weights change, a corpus is added and one is dropped, between two checkpoints."""
    before = train(read_run(write(CORPORA)).blend, tmp_path, steps=range(10))
    path = write(CHANGED, "new_segment")
    planned = plan(path, capsys)
    assert main(["plan", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    after = train(read_run(path).blend, tmp_path, steps=range(10, 30))
    both = before + after

    assert read_of(planned) == {name: both[name] for name in CHANGED}
    assert [s["first_slot"] for s in planned["segments"]] == [0, 80]
    news = next(corpus for corpus in planned["corpora"] if corpus["name"] == "news")
    assert news["share"] == pytest.approx(0.2 * 2 / 3)
    assert news["steps_per_epoch"] == pytest.approx(news["windows"] / 8 / 0.2, rel=0.01)
    assert all("new run" not in each for each in planned["warnings"])
    assert lines[2] == planned["about"]
    assert lines[2] == "The run continues from step-10, and what it has read before counts too."
    assert plan(path, capsys)["corpora"] == planned["corpora"]  # now from step 30


def test_the_plan_of_a_run_counts_what_it_has_read_of_dropped_corpora(
    write: WriteRun, tmp_path: Path, capsys: Capture
) -> None:
    before = train(read_run(write(CORPORA)).blend, tmp_path, steps=range(10))
    path = write(CHANGED, "new_segment")
    planned = plan(path, capsys)
    assert main(["plan", str(path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "books" in line]

    (books,) = planned["dropped"]
    assert (books["name"], books["tokens_read"]) == ("books", 8 * before["books"])
    assert sum(read_of(planned).values()) + before["books"] == planned["samples"]
    assert sum(c["share"] for c in planned["corpora"]) + books["share"] == pytest.approx(1)
    assert planned["bytes_read"] == planned["samples"] * 9 * 2  # 9 tokens of 2 bytes
    assert rows == [
        ["books", "dropped", f"{books['share']:.2%}", str(books["tokens_read"])],
        ["books", "10.00%", "0.00%"],
    ]


def test_short_shards_are_a_warning_of_a_changed_run_too(
    write: WriteRun, tmp_path: Path, capsys: Capture
) -> None:
    train(read_run(write(CORPORA)).blend, tmp_path, steps=range(10))
    planned = plan(write(CHANGED | {"news": (0.2, [1000, 8])}, "new_segment"), capsys)

    assert "about" in planned
    assert any("1 of 5 shards have fewer than training.seq_len" in w for w in planned["warnings"])


def test_the_plan_of_a_run_that_may_not_be_changed_says_so(
    write: WriteRun, tmp_path: Path, capsys: Capture
) -> None:
    new = read_of(plan(write(CHANGED), capsys))
    train(read_run(write(CORPORA)).blend, tmp_path, steps=range(10))
    path = write(CHANGED)
    planned = plan(path, capsys)

    (warning,) = (each for each in planned["warnings"] if "new run" in each)
    assert warning.startswith(
        "training would refuse to resume: the checkpoint was written with other data or settings "
        "(corpora added: 'news'; corpora removed: 'books'; other shares), so training would"
    )
    assert warning.endswith(
        "on_change new_segment. This plan is of a new run with the current data and settings"
    )
    assert read_of(planned) == new
    words = ["--blendcorpus.on_change", "new_segment"]
    assert read_of(plan(path, capsys, *words)) != new
    assert read_of(plan(path, capsys, "--job.dump_folder", str(tmp_path / "new"))) == new


def test_an_unchanged_run_is_planned_as_before(
    write: WriteRun, tmp_path: Path, capsys: Capture
) -> None:
    path = write(CORPORA)
    planned = plan(path, capsys)
    train(read_run(path).blend, tmp_path, steps=range(10))

    assert plan(path, capsys) == planned
    assert plan(path, capsys, "--checkpoint.no_enable") == planned


def test_steps_of_another_size_are_named(write: WriteRun, tmp_path: Path, capsys: Capture) -> None:
    """The plan counts samples by the configured size of a step."""
    train(read_run(write(CORPORA)).blend, tmp_path, steps=range(10), size=4)

    (warning,) = (each for each in plan(write(CORPORA), capsys)["warnings"] if "step-10" in each)
    assert "a step before step-10 read another number of samples than is configured" in warning


def test_another_sequence_length_is_named(write: WriteRun, tmp_path: Path, capsys: Capture) -> None:
    train(read_run(write(CORPORA)).blend, tmp_path, steps=range(10))
    path = write(CORPORA)
    words = ["--training.seq_len", "16"]
    (refused,) = plan(path, capsys, *words)["warnings"][:1]
    (warning,) = plan(path, capsys, *words, "--blendcorpus.on_change=new_segment")["warnings"][:1]

    assert "with other data or settings (another seq_length), so" in refused
    assert "a step before step-10 read samples of another length than is configured" in warning


def test_the_plan_begins_where_training_would(
    write: WriteRun, tmp_path: Path, capsys: Capture
) -> None:
    """A step may be chosen. A path to begin from matters only without checkpoints."""
    train(read_run(write(CORPORA)).blend, tmp_path, steps=range(5))
    train(read_run(write(CORPORA)).blend, tmp_path, steps=range(5, 10))
    path = write(CHANGED, "new_segment")

    def about(*words: str) -> str:
        return plan(path, capsys, *words).get("about", "")

    assert about("--checkpoint.load_step", "5").startswith("The run continues from step-5,")
    assert about("--checkpoint.initial_load_path", "/base") == about() != ""
    assert not about("--checkpoint.exclude_from_loading", "dataloader")


@pytest.mark.parametrize("orders", [("blendtitan", "blendcorpus"), ("blendcorpus", "blendtitan")])
def test_another_order_is_a_warning(
    write: WriteRun, tmp_path: Path, capsys: Capture, orders: tuple[str, str]
) -> None:
    path = write(CORPORA)
    before, now = (
        ["--blendcorpus.order", order, "--blendcorpus.data_cache_path", str(tmp_path / "cache")]
        for order in orders
    )
    run = read_run(path, values=read_run_keys(path, before))
    train(run.blend, tmp_path, steps=range(10))

    assert not any("new run" in each for each in plan(path, capsys, *before)["warnings"])
    (warning,) = (each for each in plan(path, capsys, *now)["warnings"] if "new run" in each)
    assert "other data or settings (another order), so training would not" in warning


def test_another_length_of_the_originals_order_is_a_warning(
    write: WriteRun, tmp_path: Path, capsys: Capture
) -> None:
    """Its order depends on the number of steps."""
    path = write(CORPORA)
    words = [
        *("--blendcorpus.order", "blendcorpus"),
        *("--blendcorpus.data_cache_path", str(tmp_path / "cache")),
    ]
    run = read_run(path, values=read_run_keys(path, words))
    train(run.blend, tmp_path, steps=range(10))

    longer = plan(path, capsys, *words, "--training.steps", "60")["warnings"]
    assert any("(another train_samples), so training would not" in each for each in longer)


def test_a_damaged_latest_checkpoint_is_named(
    write: WriteRun, tmp_path: Path, capsys: Capture
) -> None:
    for steps in (range(5), range(5, 10)):
        train(read_run(write(CORPORA)).blend, tmp_path, steps=steps)
    for step in (10, 5):
        (tmp_path / f"outputs/checkpoint/step-{step}/.metadata").write_bytes(b"\x80")
        planned = plan(write(CHANGED, "new_segment"), capsys)

        assert (
            "the latest checkpoint is damaged, so this plan is of a new run"
            in (planned["warnings"])
        )
        assert "about" not in planned


def test_the_picture_shows_the_change(write: WriteRun, tmp_path: Path, capsys: Capture) -> None:
    train(read_run(write(CORPORA)).blend, tmp_path, steps=range(10))
    path, page = write(CHANGED, "new_segment"), tmp_path / "blend.html"

    assert main(["plan", str(path), "--picture", str(page)]) == 0
    assert "books" in page.read_text()

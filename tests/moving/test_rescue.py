"""A rescued run of the original: what its legs read, and what it reads from then on."""

import json
import shlex
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed.checkpoint as dcp

from blendtitan.batch_schedule import schedule_of_state, slots_of
from blendtitan.cli import main
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.moving.checkpoint import copy_with_state, step_of_checkpoint
from blendtitan.moving.placed import placed_state
from blendtitan.moving.rescue import Rescue, rescue
from blendtitan.runs.audit import audit_run
from blendtitan.runs.open import open_run
from blendtitan.state import parse_state
from tests.moving.test_legs import log_of
from tests.original_cases import FOLDER, case_settings, recorded
from tests.test_docs import ROOT, code_blocks

PAGE = ROOT / "docs/moving-from-blendcorpus.md"
CASE = "with_validation"
BATCH = case_settings(CASE)["global_batch_size"]
Captured = pytest.CaptureFixture[str]
LEGS = ["0-10", "10-25", "25-37"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, word_tokenizer: Path) -> Path:
    """The TOML file of the page on moving, beside the recorded data."""
    folder = tmp_path_factory.mktemp("original")
    shutil.copytree(FOLDER / CASE, folder, dirs_exist_ok=True)
    run, *_ = code_blocks(PAGE, "toml")
    for path in ("file_list.txt", "cache"):
        run = run.replace(f'"{path}"', f'"{folder / path}"')
    run = run.replace("append_eod", "eod_token_id = 2\nappend_eod")
    (folder / "run.toml").write_text(run)
    return folder / "run.toml"


@pytest.fixture(scope="module")
def rescued(config: Path) -> Rescue:
    """Three legs of 10, 15 and 12 steps of 4 samples."""
    return rescue(config, LEGS)


def test_samples_of_three_legs_are_counted_exactly(rescued: Rescue) -> None:
    """As often as the rows that the original delivered in them, each time from its first one."""
    rows = recorded(CASE)["train"]
    delivered = Counter(row.tobytes() for steps in (10, 15, 12) for row in rows[: steps * BATCH])
    once = Counter(row.tobytes() for row in rows)
    counted: Counter[bytes] = Counter()
    for each in rescued.reads:
        for slot in each.slots:
            sample = rescued.dataset[slot]
            row = np.append(sample.input_ids, sample.labels[-1]).astype(np.int32)
            counted[row.tobytes()] += each.times

    assert max(once.values()) == 1
    assert +counted == delivered
    assert [(len(each.slots), each.times) for each in rescued.reads] == [
        (40, 3), (8, 2), (12, 1), (recorded(CASE)["train_len"] - 60, 0),
    ]  # fmt: skip
    for each in rescued.reads:
        corpora = recorded(CASE)["train_corpus"][each.slots.start : each.slots.stop]
        if each.times:
            assert list(rescued.counts(each.slots).values()) == np.bincount(corpora).tolist()


def test_the_run_continues_with_the_first_sample_that_was_never_read(rescued: Rescue) -> None:
    """The state has the keys of any other, and the batch schedule has an entry for each leg."""
    state = rescued.state()
    saved, schedule = parse_state(state), schedule_of_state(state)

    assert saved.consumed_samples == 60
    assert [slots_of(schedule, step) for step in (1, 10, 11, 25, 26, 37, 38)] == [
        range(0, 4), range(36, 40), range(0, 4), range(56, 60), range(0, 4), range(44, 48),
        range(60, 64),
    ]  # fmt: skip
    assert (rescued.end, rescued.last_step) == (37, 37 + (rescued.dataset.num_windows - 60) // 4)


def test_a_run_without_unread_samples_cannot_continue(config: Path) -> None:
    whole = rescue(config, ["0-50"])

    with pytest.raises(ConfigError, match="samples of the original's order were never read, too"):
        whole.state()


def test_only_the_originals_order_is_rescued(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "run.toml"
    other.write_text(config.read_text().replace('order = "blendcorpus"\n', ""))

    with pytest.raises(ConfigError, match=r"blendcorpus\.order is 'blendtitan', expected 'blendco"):
        rescue(other, LEGS)


def test_logs_give_the_same_legs_as_numbers(
    config: Path, rescued: Rescue, tmp_path: Path, capsys: Captured
) -> None:
    """One log with two legs, the first of which had gone further, and one of the last leg."""
    first = [*log_of(0, 14, 10), *log_of(10, 25, 10)]
    (tmp_path / "a.log").write_text("\n".join(first))
    (tmp_path / "b.log").write_text("\n".join(log_of(25, 44, 10)))
    logs = [str(tmp_path / name) for name in ("a.log", "b.log")]
    found = rescue(config, logs, end=37)

    assert found.legs == rescued.legs
    assert found.undone[-1] == "Steps 38 to 40 were undone: the checkpoint is at 37."
    assert main(["rescue", *LEGS, "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == rescued.json()
    assert main(["rescue", *LEGS, "--config", str(config)]) == 0
    assert "After step 37, the run continues with slot 60 " in capsys.readouterr().out


def test_a_file_that_is_no_log_is_refused(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.toml: found no line with 'Training starts at"):
        rescue(config, [str(config)])


# The checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of the original: nothing in it says where the loader was."""
    folder = tmp_path / "original/checkpoint/step-37"
    saved = {"train_state": {"step": 37}, "model": {"w": np.arange(3)}, "dataloader": {"dp_0": b""}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, that there is one process
        dcp.save(saved, checkpoint_id=str(folder))
    return folder


def test_a_copy_of_the_checkpoint_holds_the_state(
    checkpoint: Path, config: Path, rescued: Rescue, tmp_path: Path
) -> None:
    """Everything else is as it was, and what reads checkpoints finds the legs."""
    before = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    arguments = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "out/checkpoint")]
    assert main(["rescue", *LEGS, "--config", str(config), *arguments]) == 0
    copy = tmp_path / "out/checkpoint/step-37"
    loaded: dict[str, Any] = {
        "train_state": {"step": 0}, "model": {"w": None}, "dataloader": {"blendtitan": ""},
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(loaded, checkpoint_id=str(copy))
    (audited,) = audit_run(tmp_path / "out")

    assert loaded["train_state"] == {"step": 37}
    assert loaded["model"]["w"].tolist() == [0, 1, 2]
    assert loaded["dataloader"] == rescued.state()
    assert not audited.problems
    assert slots_of(open_run(config, copy).slots.schedule, 26) == range(0, 4)
    assert {file.name: file.read_bytes() for file in checkpoint.iterdir()} == before


def test_the_command_of_the_page_prints_what_the_page_shows(
    checkpoint: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (command,) = code_blocks(PAGE, "bash")
    shown = next(text for text in code_blocks(PAGE, "text") if "times read" in text)
    monkeypatch.chdir(checkpoint.parents[2])
    Path("run.toml").write_text(config.read_text())
    program, *arguments = shlex.split(command.replace("\\\n", " "))
    assert program == "blendtitan"
    assert main(arguments) == 0

    words = capsys.readouterr().out.split()
    assert words == shown.split()
    assert Path("outputs/checkpoint/step-37/.metadata").exists()


def test_a_checkpoint_is_not_overwritten(checkpoint: Path, rescued: Rescue, tmp_path: Path) -> None:
    """A copy that was interrupted is made again."""
    copy = copy_with_state(checkpoint, tmp_path / "out", rescued.state())
    (copy / ".metadata").unlink()
    copy_with_state(checkpoint, tmp_path / "out", rescued.state())

    with pytest.raises(ConfigError, match="step-37: holds a checkpoint already"):
        copy_with_state(checkpoint, tmp_path / "out", rescued.state())
    with pytest.raises(ConfigError, match="holds the state of blendtitan's loader already"):
        step_of_checkpoint(copy)


def test_a_checkpoint_that_cannot_be_continued_is_refused(
    checkpoint: Path, config: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"the last leg is 25-37, but .* step 40\. .* as 25-40"):
        rescue(config, LEGS, end=40)
    with pytest.raises(ConfigError, match="expected the folder of one checkpoint, such as step-"):
        step_of_checkpoint(checkpoint.parent)
    (checkpoint / ".metadata").write_bytes(b"")
    with pytest.raises(ResumeError, match=r"\.metadata is empty"):
        step_of_checkpoint(checkpoint)


# A stated sample


@pytest.mark.parametrize(
    ("sample", "slots"), [(0, range(4)), (148, range(148, 152)), (20, range(20, 24))]
)
def test_a_run_continues_with_the_stated_sample(config: Path, sample: int, slots: range) -> None:
    state = placed_state(config, step=37, sample=sample)

    assert parse_state(state).consumed_samples == sample
    assert slots_of(schedule_of_state(state), 38) == slots


def test_a_sample_that_there_is_not_is_refused(config: Path) -> None:
    with pytest.raises(
        ConfigError, match="--from-sample is -1, expected a whole number of at least 0"
    ):
        placed_state(config, step=37, sample=-1)
    with pytest.raises(ConfigError, match='204 samples are requested, but order = "blendcorpus"'):
        placed_state(config, step=37, sample=200)


def test_segments_are_refused(config: Path, tmp_path: Path) -> None:
    """Their steps would count from the start of the order."""
    segment = "[[blendcorpus.segment]]\nfrom_step = 40\nshares = { web = 0.5 }\n"
    text = config.read_text().replace('order = "blendcorpus"\n', "")
    (tmp_path / "run.toml").write_text(text.replace("[validation]", f"{segment}[validation]"))

    with pytest.raises(ConfigError, match=r"has \[\[blendcorpus\.segment\]\], whose steps would"):
        placed_state(tmp_path / "run.toml", step=37, sample=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a run continues after its legs or from --from-sample: expected either"),
        (["0-37", "--from-sample", "0"], "expected either"),
        (["--from-sample", "0"], "--from-sample places a checkpoint: expected --checkpoint and"),
        (["0-37", "--output", "out"], "--checkpoint is copied to --output: expected both, or"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(
    words: list[str], message: str, config: Path, capsys: Captured
) -> None:
    assert main(["rescue", *words, "--config", str(config)]) == 1
    assert message in capsys.readouterr().err

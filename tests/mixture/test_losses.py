"""``blendtitan sweep --collect``: what the runs of a sweep lost."""

import csv
from pathlib import Path

import numpy as np
import pytest

from blendtitan.mixture.sweep import last_logged, mean_losses, read_shares
from blendtitan.runs.scalars import Scalars
from tests.mixture.conftest import WriteConfig, collect, log_run, sweep


@pytest.fixture
def folder(write_config: WriteConfig, tmp_path: Path) -> Path:
    """A sweep of three runs on two corpora, of which none was begun."""
    sweep(write_config(corpora="code web"), tmp_path / "sweep", "--method", "grid", "--levels", "2")
    return tmp_path / "sweep"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def scalars(*logged: tuple[int, float]) -> Scalars:
    return Scalars(np.array([s for s, _ in logged]), np.array([v for _, v in logged]))


def test_losses_of_a_run_weigh_the_labels_of_the_last_steps() -> None:
    """A corpus may have had no label at a step, or at none of the last ones."""
    logged = {
        "loss_metrics/global_avg_loss": scalars((1, 9.0), (2, 3.0), (3, 2.0)),
        "loss_metrics/loss/web": scalars((1, 9.0), (2, 4.0), (3, 2.0)),
        "loss_metrics/labels/web": scalars((1, 5.0), (2, 10.0), (3, 30.0)),
        "loss_metrics/loss/code": scalars((1, 9.0), (3, 1.5)),
        "loss_metrics/labels/code": scalars((1, 5.0), (3, 8.0)),
        "loss_metrics/loss/rare": scalars((1, 9.0)),
        "loss_metrics/labels/rare": scalars((1, 5.0)),
        "validation_metrics/loss": scalars((1, 9.0), (3, 2.5)),
        "validation_metrics/loss/web": scalars((1, 9.0), (3, 2.25)),
        "validation_metrics/loss/held-out": scalars((1, 9.0), (3, 2.0)),
    }

    assert mean_losses(logged, ["code", "gone", "rare", "web"], last=2) == {
        "loss": 2.5,
        "loss/code": 1.5,
        "loss/web": 2.5,
        "valid_loss": 2.5,
        "valid_loss/web": 2.25,
        "valid_loss/held-out": 2.0,
    }


@pytest.mark.parametrize(
    ("steps", "freq", "last"), [(10, 5, 10), (10, 4, 8), (3, 10, 1), (1, 1, 1)]
)
def test_the_last_step_that_is_logged(steps: int, freq: int, last: int) -> None:
    assert last_logged(steps, freq) == last


def test_a_line_for_each_run(folder: Path) -> None:
    for number in range(3):
        log_run(folder, f"blend-00{number}", steps=10, loss=3.0 + number)

    assert collect(folder, "--last", "1") == 0
    assert (folder / "losses.csv").read_text().splitlines()[:2] == [
        "run,steps,share/code,share/web,loss,loss/code,loss/web,"
        "valid_loss,valid_loss/code,valid_loss/web",
        "blend-000,10,0.0,1.0,3,13,14,13,13,13",
    ]
    shares = read_shares(folder)
    for line, (run, blend) in zip(table(folder / "losses.csv"), shares.items(), strict=True):
        assert line["run"] == run
        assert {name: float(line[f"share/{name}"]) for name in blend} == blend


def test_tools_that_read_two_files_get_the_runs_that_are_finished(folder: Path) -> None:
    """`olmix fit --from-csv` joins them by ``run_id``; all other columns are numbers."""
    log_run(folder, "blend-001", steps=10)
    log_run(folder, "blend-002", steps=9)
    collect(folder)

    assert table(folder / "ratios.csv") == [{"run_id": "blend-001", "code": "0.5", "web": "0.5"}]
    (metrics,) = table(folder / "metrics.csv")
    assert metrics.pop("run_id") == "blend-001"
    assert [*metrics] == [
        f"{kind}{corpus}" for kind in ("loss", "valid_loss") for corpus in ("", "/code", "/web")
    ]
    assert all(float(loss) > 0 for loss in metrics.values())


def test_a_corpus_without_validation_has_no_column(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The regressions of Olmix and RegMix fail on an empty column."""
    for number in range(3):
        without = ("validation_metrics/loss/code",)
        log_run(folder, f"blend-00{number}", steps=10, without=without)

    assert collect(folder) == 0
    assert "a validation loss of code, so there is no such column" in capsys.readouterr().out
    for name in ("losses.csv", "metrics.csv"):
        lines = table(folder / name)
        assert "valid_loss/web" in lines[0]
        assert "valid_loss/code" not in lines[0]
        assert all(cell for line in lines for cell in line.values())


def test_a_loss_that_one_run_lacks_is_left_out_of_the_table_without_gaps(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that excludes a corpus has no training loss of it."""
    without = ("loss_metrics/loss/code", "loss_metrics/labels/code")
    log_run(folder, "blend-000", steps=10, without=without)
    log_run(folder, "blend-001", steps=10)

    assert collect(folder) == 0
    assert "that some finished runs did not log: loss/code." in capsys.readouterr().out
    assert [bool(line["loss/code"]) for line in table(folder / "losses.csv")[:2]] == [False, True]
    for line in table(folder / "metrics.csv"):
        assert "loss/code" not in line
        assert all(line.values())


@pytest.mark.parametrize("name", ["losses.csv", "ratios.csv", "metrics.csv"])
def test_a_table_of_another_program_is_replaced_only_on_request(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Its own earlier tables are replaced, also when runs have finished since."""
    assert collect(folder) == 0
    log_run(folder, "blend-001", steps=10)
    assert collect(folder) == 0
    (folder / name).write_text("run,mine\n1,2\n")

    assert collect(folder) == 1
    assert f"{name}: exists already, and was not written by this" in capsys.readouterr().err
    assert (folder / name).read_text() == "run,mine\n1,2\n"
    assert collect(folder, "--overwrite") == 0


def test_runs_that_are_not_finished_have_no_losses(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One was not begun, one was stopped, one was stopped before its last validation."""
    log_run(folder, "blend-001", steps=6)
    log_run(folder, "blend-002", steps=10, validated=5)

    assert collect(folder) == 0
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("not begun", "6 of 10", "10 of 10", "0 of 3 runs are"))
    assert (folder / "losses.csv").read_text().splitlines() == [
        "run,steps,share/code,share/web",
        "blend-000,0,0.0,1.0",
        "blend-001,6,0.5,0.5",
        "blend-002,10,1.0,0.0",
    ]


def test_a_run_with_another_blend_than_the_table_is_an_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_run(folder, "blend-001", steps=10)
    config = folder / "blend-001/config.toml"
    config.write_text(config.read_text().replace("code = 0.5", "code = 0.7"))

    assert collect(folder) == 1
    assert "config.toml: the run has blendcorpus.segment" in capsys.readouterr().err
    assert not (folder / "losses.csv").exists()


def test_a_folder_without_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect(tmp_path) == 1
    assert "this folder has no shares.csv" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "run,web\nblend-000\n", "run,web\nblend-000,much\n"])
def test_a_table_of_shares_that_was_damaged(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shares.csv").write_text(text)

    assert collect(tmp_path) == 1
    assert "shares.csv: " in capsys.readouterr().err

"""``blendtitan sweep``: the configurations of many blends, and their shares."""

from pathlib import Path

import pytest

from blendtitan import build_datasets
from blendtitan.mixture.sweep import read_shares, with_keys
from blendtitan.runs.open import read_run
from blendtitan.settings.toml import read_toml
from tests.mixture.conftest import WriteConfig, sweep

GRID = ("--method", "grid", "--levels", "2")


def test_unchanged_parts_of_a_text_stay() -> None:
    text = '# head\n[job]\ndump_folder = "old" # where\n\n[training]\nsteps = 3\n'
    keys = {"job.dump_folder": "new", "training.seed": 7, "blendcorpus.split": "90,10,0"}

    assert with_keys(text, keys) == (
        '# head\n[job]\ndump_folder = "new" # where\n\n[training]\nsteps = 3\nseed = 7\n'
        '\n[blendcorpus]\nsplit = "90,10,0"\n'
    )


def test_a_run_of_each_blend_reads_the_same_data_in_its_shares(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    """Nothing else differs from the configuration that the blends are tried with."""
    config = write_config()
    folder = tmp_path / "sweep"

    assert sweep(config, folder, *GRID) == 0
    shares = read_shares(folder)
    assert [*shares] == [f"blend-00{number}" for number in range(6)]
    for run, blend in shares.items():
        path = folder / f"{run}.toml"
        changed = {"job.dump_folder", "blendcorpus.segment"}
        values = read_toml(path)
        assert values.keys() - read_toml(config).keys() == changed
        assert values | read_toml(config) == values
        assert values["job.dump_folder"] == str(folder / run)
        assert "global_batch_size = 4 # of all ranks" in path.read_text()
        train = build_datasets(read_run(path).blend).train
        assert train is not None
        drawn = [train[slot].corpus for slot in range(40)]
        for corpus, share in blend.items():
            assert drawn.count(corpus) == pytest.approx(40 * share, abs=2)


def test_the_folder_of_a_run_can_be_swept_too(write_config: WriteConfig, tmp_path: Path) -> None:
    """Its complete configuration has an empty list of segments already."""
    config = write_config({"blendcorpus.segment": []})
    (tmp_path / "done").mkdir()
    config.rename(tmp_path / "done/config.toml")

    assert sweep(tmp_path / "done", tmp_path / "sweep", *GRID) == 0
    assert len(read_shares(tmp_path / "sweep")) == 6


def test_the_same_sweep_again_changes_nothing(write_config: WriteConfig, tmp_path: Path) -> None:
    config, folder = write_config(), tmp_path / "sweep"
    sweep(config, folder, *GRID)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    assert sweep(config, folder, *GRID) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_sweep_may_grow(write_config: WriteConfig, tmp_path: Path) -> None:
    config, folder = write_config(), tmp_path / "sweep"
    sweep(config, folder, "--runs", "3", "--seed", "5")
    first = read_shares(folder)

    assert sweep(config, folder, "--runs", "5", "--seed", "5") == 0
    assert len(read_shares(folder)) == 5
    assert [*read_shares(folder).items()][:3] == [*first.items()]


@pytest.mark.parametrize("arguments", [["--runs", "5", "--seed", "6"], ["--runs", "2"]])
def test_another_sweep_in_the_same_folder_is_refused(
    arguments: list[str],
    write_config: WriteConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, folder = write_config(), tmp_path / "sweep"
    sweep(config, folder, "--runs", "3")
    before = {path: path.read_text() for path in folder.iterdir()}

    assert sweep(config, folder, *arguments) == 1
    assert "shares.csv: found the file of another sweep" in capsys.readouterr().err
    assert {path: path.read_text() for path in folder.iterdir()} == before


def test_a_changed_configuration_is_another_sweep(
    write_config: WriteConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweep"
    sweep(write_config(), folder, *GRID)

    assert sweep(write_config({"training.steps": 11}), folder, *GRID) == 1
    assert "blend-000.toml: found the file of another sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"blendcorpus.segment": [{"from_step": 5, "shares": {"web": 1}}]},
            "blendcorpus.segment has 1 entries, expected none",
        ),
        (
            {
                "blendcorpus.order": "blendcorpus",
                "blendcorpus.data_cache_path": "cache",
                "validation.enable": False,
            },
            "blendcorpus.order is 'blendcorpus', expected \"blendtitan\"",
        ),
        ({"metrics.enable_tensorboard": False}, "metrics.enable_tensorboard is not true"),
        ({"training.steps": 50}, " in blend-002. Train for fewer steps"),
    ],
)
def test_configurations_that_cannot_be_swept(
    keys: dict[str, object],
    message: str,
    write_config: WriteConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sweep(write_config(keys), tmp_path / "sweep", *GRID) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()

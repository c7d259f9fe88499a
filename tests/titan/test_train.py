"""The entry point: which configuration a command line asks for."""

import shutil
from pathlib import Path

import pytest

from blendtitan.titan.train import read_run
from blendtitan.titan.trainer import BlendTrainer
from tests.titan.test_assemble import DEMO


@pytest.fixture
def checkout(tmp_path: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the demo's configuration and tokenizer."""
    (tmp_path / "configs").mkdir()
    shutil.copy(DEMO, tmp_path / "configs")
    (tmp_path / "data/demo/tokenizer").mkdir(parents=True)
    shutil.copy(tokenizer_path, tmp_path / "data/demo/tokenizer")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "form",
    [
        ["--job.config_file", "configs/debug.toml"],
        ["--module", "blendtitan.titan", "--config", "debug"],
        ["--module=blendtitan.titan", "--config=debug"],
    ],
    ids=["TOML", "Python", "Python, with ="],
)
def test_a_file_and_a_function_give_the_same_run(checkout: Path, form: list[str]) -> None:
    config, settings = read_run([*form, "--training.steps", "7"])

    assert isinstance(config, BlendTrainer.Config)
    assert (settings is None) == form[0].startswith("--module")
    assert (config.training.steps, config.training.seq_len) == (7, 256)
    assert config.dataloader.data_file_list == "data/demo/file_list.txt"

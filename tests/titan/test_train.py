"""The entry point: which configuration a command line asks for."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.train import read_run
from blendtitan.titan.trainer import BlendTrainer, settled
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


def test_a_configuration_is_the_same_after_it_was_used(checkout: Path) -> None:
    """So a program, or the command line, may still change it."""
    config, _ = read_run(["--module", "blendtitan.titan", "--config", "debug"])
    assert isinstance(config, BlendTrainer.Config)
    before = config.to_dict()
    used = settled(config)
    changed = replace(config, training=replace(config.training, local_batch_size=4))

    assert config.to_dict() == before
    for settled_one, size in ((used, config.training.local_batch_size), (settled(changed), 4)):
        assert isinstance(settled_one.dataloader, BlendCorpusDataLoader.Config)
        assert settled_one.dataloader.micro_batch_size == size


def test_arguments_change_what_a_function_returns(checkout: Path) -> None:
    """A value that the loader follows among them."""
    chosen = ["--module", "blendtitan.titan", "--config", "debug"]
    config, _ = read_run([*chosen, "--training.local_batch_size", "4"])

    assert isinstance(config, BlendTrainer.Config)
    assert settled(config).training.local_batch_size == 4

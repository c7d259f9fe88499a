"""TorchTitan's own configurations on a blend, and the page that shows how."""

from pathlib import Path
from typing import Any

import pytest
from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.models.llama3.config_registry import llama3_debugmodel
from torchtitan.models.qwen3.config_registry import qwen3_debugmodel

from blendtitan.titan.checkpoint import BlendCheckpointManager
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.losses import with_rows
from blendtitan.titan.metrics import LossMetrics
from blendtitan.titan.settings import Settings
from blendtitan.titan.toml import read_settings
from blendtitan.titan.trainer import settled
from blendtitan.titan.validator import BlendCorpusValidator
from blendtitan.titan.with_blend import with_blend
from tests.small_corpora import write_corpora
from tests.test_docs import ROOT, code_blocks
from tests.titan.conftest import TIMEOUT_S
from tests.titan.launched import Launched, train_in
from tests.titan.test_hf_assets import write_tokenizer

BLEND = BlendCorpusDataLoader.Config(data_file_list="list.txt")


def test_everything_but_the_data_is_kept() -> None:
    theirs = qwen3_debugmodel()
    theirs.checkpoint = CheckpointManager.Config(interval=7)
    config = with_blend(theirs, BLEND)

    assert isinstance(config.dataloader, BlendCorpusDataLoader.Config)
    assert config.training == theirs.training
    assert config.optimizer == theirs.optimizer
    assert config.loss == theirs.loss
    assert settled(config).loss == with_rows(theirs.loss)
    assert isinstance(config.metrics, LossMetrics.Config)
    assert config.metrics.log_freq == theirs.metrics.log_freq == 1
    assert isinstance(config.checkpoint, BlendCheckpointManager.Config)
    assert config.checkpoint.interval == 7


def test_validation_reads_the_valid_split_of_the_blend() -> None:
    config = with_blend(llama3_debugmodel(), BLEND)
    valid = config.validator.dataloader

    assert isinstance(valid, BlendCorpusDataLoader.Config)
    assert (valid.data_file_list, valid.split_name) == ("list.txt", "valid")
    assert isinstance(config.validator, BlendCorpusValidator.Config)
    assert config.validator.steps == 10


def test_the_loader_gets_the_settings_that_the_model_decides() -> None:
    loader = settled(with_blend(llama3_debugmodel(), BLEND)).dataloader

    assert loader.to_dict()["vocab_size"] == 2048
    assert loader.to_dict()["micro_batch_size"] == 8


def settings_shown(page: str, folder: Path) -> list[Settings]:
    path = folder / "shown.toml"
    read: list[Settings] = []
    for shown in code_blocks(ROOT / "docs" / page, "toml"):
        if "blendtitan.titan02" in shown:
            continue  # for TorchTitan 0.2
        path.write_text(shown)
        read.append(read_settings(["--job.config_file", str(path)]))
    return read


def test_the_settings_that_the_pages_show_are_read(tmp_path: Path) -> None:
    from_weights, masked = settings_shown("torchtitan.md", tmp_path)
    planned, sized, unplanned = settings_shown("changing.md", tmp_path)
    megatron, from_megatron = settings_shown("moving-from-megatron.md", tmp_path)
    (torchtitan,) = settings_shown("moving-from-torchtitan.md", tmp_path)
    (original,) = settings_shown("blendcorpus.md", tmp_path)

    assert masked.blendcorpus.provide_attention_mask
    assert from_weights.checkpoint.initial_load_in_hf
    assert len(planned.blendcorpus.segment) == 2
    assert sized.training.batch_schedule
    assert unplanned.blendcorpus.on_change == "new_segment"
    assert megatron.blendcorpus.split == "969,30,1"
    assert from_megatron.checkpoint.initial_load_in_hf
    assert torchtitan.blendcorpus.eod_mask_loss
    assert original.blendcorpus.blend_sample_in_corpus


def test_the_configuration_that_the_page_on_losses_shows() -> None:
    """Validation reads the split of the same blend that training leaves."""
    (snippet,) = code_blocks(ROOT / "docs/losses.md", "python")
    shown: dict[str, Any] = {}
    exec(snippet, shown)
    config = shown["config"]

    assert config.dataloader.data_file_list == config.validator.dataloader.data_file_list
    assert config.validator.dataloader.split_name == "valid"


@pytest.mark.slow
def test_the_three_lines_of_the_page_train(tmp_path: Path) -> None:
    """As they are written, in a folder that has what they name."""
    (snippet,) = code_blocks(ROOT / "docs/torchtitan.md", "python")
    (tmp_path / "my_runs.py").write_text(snippet)
    assets = tmp_path / "tests/assets/tokenizer"
    for folder in (assets, tmp_path / "data"):
        folder.mkdir(parents=True)
    write_tokenizer(assets)
    write_corpora(tmp_path / "data")
    words = [str(tmp_path), "--module", "my_runs", "--config", "mine", "--training.steps", "2"]
    words += ["--training.seq_len", "32", "--training.mixed_precision_param", "float32"]
    words += ["--parallelism.spmd_backend", "partial_dtensor"]
    run = Launched.start(words, processes=1, record=tmp_path / "record", entry=train_in)

    assert run.wait(TIMEOUT_S) == 0, run.output[-5000:]
    assert "training loss: " in run.output

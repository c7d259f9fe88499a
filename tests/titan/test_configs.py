"""The configurations that come with the project: each is read, and its model is built."""

from pathlib import Path

import pytest
import torch

from blendtitan.titan import config_registry, cpu
from blendtitan.titan.assemble import build_config
from blendtitan.titan.toml import read_settings
from blendtitan.titan.trainer import BlendTrainer, settled

CONFIGS = Path(__file__).parents[2] / "configs"

# Vocabulary and number of parameters as published. TorchTitan's DeepSeek 16B is DeepSeek-V2-Lite.
PUBLISHED = {
    "llama2_7b": (32000, 6_738_415_616),
    "llama3_1b": (128256, 1_235_814_400),
    "llama3_8b": (128256, 8_030_261_248),
    "llama3_70b": (128256, 70_553_706_496),
    "llama3_405b": (128256, 405_853_388_800),
    "qwen3_0_6b": (151936, 596_049_920),
    "qwen3_1_7b": (151936, 1_720_574_976),
    "qwen3_8b": (151936, 8_190_735_360),
    "qwen3_32b": (151936, 32_762_123_264),
    "qwen3_30b_a3b": (151936, 30_532_122_624),
    "deepseek_v3_16b": (102400, 15_706_484_224),
}


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has one: no configuration is changed for a CPU."""
    monkeypatch.setattr(cpu, "is_used", lambda: False)


def read(name: str, tokenizer_path: Path, *arguments: str) -> BlendTrainer.Config:
    tokenizer = ["--model.tokenizer_path", str(tokenizer_path), "--model.tokenizer_backend", "sp"]
    path = CONFIGS / f"{name}.toml"
    return build_config(read_settings(["--job.config_file", str(path), *tokenizer, *arguments]))


def test_every_file_has_a_function_and_a_test() -> None:
    files = {path.stem for path in CONFIGS.glob("*.toml")}

    assert files == set(dir(config_registry))
    assert all(callable(getattr(config_registry, name)) for name in files)
    assert files == PUBLISHED.keys() | {"debug"}


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_model_is_the_published_one(name: str, tokenizer_path: Path) -> None:
    """Built on the meta device; the vocabulary is the published tokenizer's, which is not here."""
    vocab_size, num_parameters = PUBLISHED[name]
    config = read(name, tokenizer_path, "--model.vocab_size", str(vocab_size))
    assert config.model_spec is not None
    with torch.device("meta"):
        model = config.model_spec.model.build()

    assert sum(weight.numel() for weight in model.parameters()) == num_parameters


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_vocabulary_beyond_the_tokenizers_is_written_down(
    name: str, tokenizer_path: Path
) -> None:
    """Published weights have as many rows as the model has, which must not follow the tokenizer."""
    config = read(name, tokenizer_path)

    expected = {"qwen3": 151936, "deepseek": 102400, "llama2": 128, "llama3": 128}
    assert settled(config).dataloader.to_dict()["vocab_size"] == expected[name.split("_")[0]]


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_run_resumes_on_the_same_and_on_other_ranks(name: str, tokenizer_path: Path) -> None:
    """With a global batch size of its own, and complete checkpoints."""
    config = read(name, tokenizer_path)
    checkpoint = config.checkpoint.to_dict()

    assert config.training.global_batch_size % config.training.local_batch_size == 0
    assert config.training.global_batch_size > 0
    assert (checkpoint["enable"], checkpoint["last_save_model_only"]) == (True, False)


@pytest.mark.parametrize("name", ["llama2_7b", "llama3_1b", "qwen3_0_6b", "qwen3_8b"])
def test_a_laptop_can_try_them_with_documents_in_one(name: str, tokenizer_path: Path) -> None:
    config = read(name, tokenizer_path, "--blendcorpus.no_provide_attention_mask")

    assert config.model_spec is not None

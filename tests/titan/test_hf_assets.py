"""A folder of Hugging Face files: its tokenizer, and weights to begin from."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models

from blendtitan.titan.model import build_model_spec, decoder_config
from tests.small_corpora import EOD, VOCAB_SIZE
from tests.titan.conftest import Job
from tests.titan.recorded_train import NUM_LAYERS

pytestmark = pytest.mark.slow

Weights = dict[str, torch.Tensor]


def write_tokenizer(folder: Path) -> None:
    words = {f"w{token}": token for token in range(VOCAB_SIZE)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.add_special_tokens([AddedToken(f"w{EOD}", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": f"w{EOD}"}))


def write_weights(folder: Path, name: str) -> Weights:
    """Weights of a debug model as Hugging Face names and arranges them, in two files."""
    spec = build_model_spec(name, "debugmodel", vocab_size=128)
    del decoder_config(spec).layers[NUM_LAYERS:]
    model = spec.model.build()
    torch.manual_seed(0)
    with torch.no_grad():
        model.init_weights()
    assert spec.state_dict_adapter is not None
    weights = spec.state_dict_adapter(spec.model, None).to_hf(model.state_dict())
    weights = {key: weight.contiguous() for key, weight in weights.items()}
    files = {
        key: f"model-0000{1 + place % 2}-of-00002.safetensors"
        for place, key in enumerate(sorted(weights))
    }
    for file in set(files.values()):
        save_file({key: weights[key] for key in weights if files[key] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return weights


def read_weights(folder: Path) -> Weights:
    return {
        key: weight
        for file in folder.glob("*.safetensors")
        for key, weight in load_file(file).items()
    }


@pytest.mark.parametrize("name", ["llama3", "qwen3"])
def test_a_run_begins_from_its_weights_and_writes_them_in_the_same_form(
    name: str, job: Job, tmp_path: Path
) -> None:
    """A step with a learning rate of 0 must leave every weight as it was, bit for bit."""
    assets = tmp_path / "assets"
    assets.mkdir()
    write_tokenizer(assets)
    weights = write_weights(assets, name)
    job.settings["model"] = {
        "name": name,
        "hf_assets_path": str(assets),
    }
    job.settings["checkpoint"] |= {
        "initial_load_in_hf": True,
        "last_save_model_only": True,
        "last_save_in_hf": True,
    }
    job.run("--training.steps", "1", "--optimizer.lr", "0")

    saved = read_weights(tmp_path / "out/checkpoint/step-1")
    assert saved.keys() == weights.keys()
    assert all(torch.equal(saved[key], weights[key]) for key in weights)
    assert job.samples() == {1: job.expected_samples(1)}


def test_weights_of_another_vocabulary_are_refused(job: Job, tmp_path: Path) -> None:
    """A model whose vocabulary follows the tokenizer may have fewer rows than the weights."""
    assets = tmp_path / "assets"
    assets.mkdir()
    write_weights(assets, "llama3")
    job.settings["model"] |= {"hf_assets_path": str(assets), "vocab_size": 192}
    output = job.fail("--training.steps", "1", "--checkpoint.initial_load_in_hf")

    assert "Size mismatch between saved torch.Size([128, 256]) and current" in output
    assert "set model.vocab_size to that of the checkpoint" in output

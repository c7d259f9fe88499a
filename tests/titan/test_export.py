"""Exported models: transformers loads them and computes what TorchTitan's model computes."""

import json
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import transformers

from blendtitan.cli import main
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.moving import export as export_module
from blendtitan.moving.export import export
from blendtitan.settings.toml import toml_of
from blendtitan.titan.model import build_model_spec
from blendtitan.tokenizers import load_tokenizer
from tests.test_docs import ROOT, code_blocks
from tests.titan.conftest import TIMEOUT_S, Job
from tests.titan.launched import Launched, train_in
from tests.titan.test_hf_assets import write_tokenizer as write_hf_tokenizer

TOKENS = torch.arange(3, 67).reshape(2, 32)
TEXTS = ("hello wonderful", "  two  spaces ", "Ünïcode\n\tline")


def save_run(folder: Path, tokenizer: Path, **model: Any) -> tuple[Path, torch.Tensor]:
    """A run's folder with a checkpoint, and the logits of its model for some tokens."""
    keys = {"name": "llama3", "flavor": "debugmodel", "tokenizer_path": str(tokenizer)} | model
    lines = [f"{key} = {toml_of(value)}" for key, value in keys.items()]
    (folder / "config.toml").write_text("\n".join(["[model]", *lines]))
    spec = build_model_spec(
        keys["name"], keys["flavor"], vocab_size=keys.get("vocab_size", 128), attn_backend="sdpa"
    )
    torch.manual_seed(0)
    module = spec.model.build()
    with torch.no_grad():
        module.init_weights()
        logits = module(TOKENS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = module.state_dict() | {"train_state": {"step": 7}}
        dcp.save(state, checkpoint_id=folder / "checkpoint/step-7")
    return folder / "checkpoint/step-7", logits


def loaded(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


def check_same_ids(folder: Path, tokenizer: Path) -> None:
    ours = load_tokenizer(tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)

    for text in TEXTS:
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text)
    assert theirs.eos_token_id == ours.eos_id


@pytest.mark.parametrize(
    ("name", "flavor"), [("llama3", "debugmodel"), ("qwen3", "debugmodel")], ids=str
)
def test_logits_are_those_of_torchtitans_model(
    name: str, flavor: str, tmp_path: Path, tokenizer_path: Path
) -> None:
    """With the run's vocabulary of 128, where the flavor has another."""
    checkpoint, expected = save_run(tmp_path, tokenizer_path, name=name, flavor=flavor)
    assert main(["export", str(checkpoint), "--hf", str(tmp_path / "hf")]) == 0
    model = loaded(tmp_path / "hf")
    with torch.no_grad():
        logits = model(TOKENS).logits

    assert logits.shape == (2, 32, 128)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    check_same_ids(tmp_path / "hf", tokenizer_path)


@pytest.mark.slow
def test_the_command_of_the_page_exports_the_last_checkpoint_of_a_run(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds only the model, as TorchTitan saves it by default."""
    job.settings["checkpoint"] |= {"last_save_model_only": True, "interval": 1000}
    job.settings["job"] = {"dump_folder": "outputs"}
    words = [str(job.folder), "--job.config_file", str(job.write_toml()), "--training.steps", "2"]
    run = Launched.start(words, processes=1, record=job.folder / "record", entry=train_in)
    assert run.wait(TIMEOUT_S) == 0, run.output
    monkeypatch.chdir(job.folder)
    (command,) = code_blocks(ROOT / "docs/torchtitan.md", "bash")
    program, *arguments = shlex.split(command.replace("step-1000", "step-2"))
    assert program == "blendtitan"
    assert main(arguments) == 0
    expected = build_model_spec("llama3", "debugmodel", vocab_size=128, attn_backend="sdpa")
    module = expected.model.build()
    state = module.state_dict()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        dcp.load(state, checkpoint_id="outputs/checkpoint/step-2")
        module.load_state_dict(state)
        torch.testing.assert_close(
            loaded(Path("exported"))(TOKENS).logits, module(TOKENS), rtol=1e-4, atol=1e-4
        )

    assert "parameters in 1 file, with a vocabulary of 128." in capsys.readouterr().out


def test_a_hugging_face_tokenizer_is_copied_with_its_special_tokens(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    write_hf_tokenizer(tmp_path / "assets")
    checkpoint, _ = save_run(tmp_path, tmp_path / "assets")
    export(checkpoint, tmp_path / "hf", config=None, dtype="float32")

    check_same_ids(tmp_path / "hf", tmp_path / "assets")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert (config["eos_token_id"], config["bos_token_id"]) == (2, None)


def test_large_models_have_several_files(
    tmp_path: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded in another type than they were trained in."""
    checkpoint, expected = save_run(tmp_path, tokenizer_path)
    monkeypatch.setattr(export_module, "_MOST_FILE_BYTES", 1_000_000)
    exported = export(checkpoint, tmp_path / "hf", config=None, dtype="bfloat16")
    model = loaded(tmp_path / "hf")

    assert exported.num_files == len(list((tmp_path / "hf").glob("*.safetensors"))) > 3
    assert model.dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(model.float()(TOKENS).logits, expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"flavor": "1B"}, r"step-7: holds another model than .*config\.toml describes"),
        ({"vocab_size": 192}, r"step-7: holds another model .*\(Size mismatch"),
        ({"name": "deepseek_v3"}, r"deepseek_v3 debugmodel cannot be exported: .* llama3, qwen3\."),
        ({"name": "qwen3", "flavor": "debugmodel_moe"}, "qwen3 debugmodel_moe cannot be exported"),
    ],
    ids=str,
)
def test_a_model_that_cannot_be_exported_is_refused(
    model: dict[str, Any], message: str, tmp_path: Path, tokenizer_path: Path
) -> None:
    checkpoint, _ = save_run(tmp_path, tokenizer_path)
    keys = {"name": "llama3", "flavor": "debugmodel", "tokenizer_path": str(tokenizer_path)}
    lines = [f"{key} = {toml_of(value)}" for key, value in (keys | model).items()]
    (tmp_path / "config.toml").write_text("\n".join(["[model]", *lines]))

    with pytest.raises((ConfigError, ResumeError), match=message):
        export(checkpoint, tmp_path / "hf", config=None, dtype="float32")
    assert not (tmp_path / "hf").exists()


def test_folders_that_cannot_be_meant_are_refused(tmp_path: Path, tokenizer_path: Path) -> None:
    checkpoint, _ = save_run(tmp_path, tokenizer_path)
    with pytest.raises(ConfigError, match=r"checkpoint: has no \.metadata, expected the folder of"):
        export(checkpoint.parent, tmp_path / "hf", config=None, dtype="float32")
    with pytest.raises(ConfigError, match="expected a new folder, or an empty one"):
        export(checkpoint, checkpoint, config=None, dtype="float32")
    (tmp_path / "config.toml").unlink()
    with pytest.raises(ConfigError, match=r"found no config\.toml of its run .* with --config"):
        export(checkpoint, tmp_path / "hf", config=None, dtype="float32")

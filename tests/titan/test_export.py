"""Exported models: transformers loads them and computes what TorchTitan's model computes."""

import json
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import transformers
from safetensors.torch import load_file
from torchtitan.models import deepseek_v3, kimi_k2_7

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
TITAN02 = Path(os.environ.get("TITAN02", ROOT / ".venv-titan02/0.2.2"))
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
        for bias in (b for name, b in module.named_buffers() if name.endswith("expert_bias_E")):
            bias.uniform_(-0.1, 0.1)  # as after load balancing
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch's, about the CPU and that this is one process
        logits = module(TOKENS)
        state = module.state_dict() | {"train_state": {"step": 7}}
        dcp.save(state, checkpoint_id=folder / "checkpoint/step-7")
    return folder / "checkpoint/step-7", logits


def loaded(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


def check_same_logits(folder: Path, expected: torch.Tensor) -> None:
    with torch.no_grad():
        logits = loaded(folder)(TOKENS).logits

    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


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

    assert expected.shape == (2, 32, 128)
    check_same_logits(tmp_path / "hf", expected)
    check_same_ids(tmp_path / "hf", tokenizer_path)


def small_layers(build: Callable[..., Any], **sizes: Any) -> Any:
    """Layers with latent attention and experts: few, with few heads and experts."""
    sizes |= {"n_layers": 4, "n_heads": 2, "kv_lora_rank": 32, "num_experts": 32}
    sizes |= {"dense_hidden_dim": 64, "moe_hidden_dim": 32}
    return build(**sizes | {"q_lora_rank": min(sizes["q_lora_rank"], 32)})


@pytest.fixture
def small_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The large flavors have small layers, whose experts compute in float32 and not in bfloat16."""
    for package, name in ((deepseek_v3, "_build_dsv3_layers"), (kimi_k2_7, "_build_kimi_layers")):
        monkeypatch.setattr(package, name, partial(small_layers, getattr(package, name)))
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)


@pytest.mark.parametrize(
    ("name", "flavor"), [("deepseek_v3", "671B"), ("kimi_k2_7", "moonlight-16B-A3B")], ids=str
)
@pytest.mark.usefixtures("small_experts")
def test_logits_of_experts_with_biases_are_the_same(
    name: str, flavor: str, tmp_path: Path, tokenizer_path: Path
) -> None:
    """With groups of experts, scaled rotary frequencies and a low rank for queries, and without."""
    checkpoint, expected = save_run(tmp_path, tokenizer_path, name=name, flavor=flavor)
    export(checkpoint, tmp_path / "hf", config=None, dtype="float32")

    check_same_logits(tmp_path / "hf", expected)


@pytest.mark.usefixtures("small_experts")
def test_biases_of_experts_stay_in_float32(tmp_path: Path, tokenizer_path: Path) -> None:
    model = {"name": "kimi_k2_7", "flavor": "moonlight-16B-A3B"}
    checkpoint, _ = save_run(tmp_path, tokenizer_path, **model)
    export(checkpoint, tmp_path / "hf", config=None, dtype="bfloat16")
    kinds = {n: w.dtype for n, w in load_file(tmp_path / "hf/model.safetensors").items()}

    float32 = {name for name, kind in kinds.items() if kind == torch.float32}
    assert float32 == {f"model.layers.{n}.mlp.gate.e_score_correction_bias" for n in (1, 2, 3)}
    assert {*kinds.values()} == {torch.float32, torch.bfloat16}


SAVE_02 = """
import importlib, pathlib, torch, torch.distributed.checkpoint as dcp
for name in ("llama3", "qwen3"):
    spec = importlib.import_module(f"torchtitan.models.{name}").get_train_spec()
    module = spec.model_cls(spec.model_args["debugmodel"])
    folder = pathlib.Path(name, "checkpoint/step-7")
    with torch.no_grad():
        module.init_weights()
        dcp.save(module.state_dict(), checkpoint_id=folder)
        torch.save(module(torch.arange(3, 67).reshape(2, 32)), f"{name}/logits.pt")
"""


@pytest.mark.slow
@pytest.mark.skipif(not TITAN02.exists(), reason=f"there is no TorchTitan 0.2.2 in {TITAN02}")
def test_logits_are_those_of_the_models_of_torchtitan_02(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    """With the flavor's vocabulary, which is larger than the tokenizer's."""
    subprocess.run(
        [sys.executable, "-c", SAVE_02],
        env=os.environ | {"PYTHONPATH": str(TITAN02), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        check=True,
    )
    for name in ("llama3", "qwen3"):
        folder = tmp_path / name
        keys = f'name = "{name}"\nflavor = "debugmodel"\ntokenizer_path = "{tokenizer_path}"\n'
        (folder / "config.toml").write_text(f"[model]\n{keys}")
        export(folder / "checkpoint/step-7", folder / "hf", config=None, dtype="float32")
        with torch.no_grad():
            logits = loaded(folder / "hf")(TOKENS).logits

        assert logits.shape == (2, 32, 2048)
        expected = torch.load(folder / "logits.pt")
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def save_as_02(checkpoint: Path) -> None:
    """Give the weights of a checkpoint the names of TorchTitan 0.2."""
    names = dcp.FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    weights: dict[str, Any] = {
        name: torch.empty(stored.size) for name, stored in names.items() if hasattr(stored, "size")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(weights, checkpoint_id=checkpoint)
        weights["output.weight"] = weights.pop("lm_head.weight")
        old = {name.replace(".qkv_linear.", "."): weight for name, weight in weights.items()}
        dcp.save(old, checkpoint_id=checkpoint)


def test_weights_are_found_under_the_names_of_torchtitan_02(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    checkpoint, expected = save_run(tmp_path, tokenizer_path, vocab_size=192)
    save_as_02(checkpoint)
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace("vocab_size = 192", ""))
    export(checkpoint, tmp_path / "hf", config=None, dtype="float32")

    check_same_logits(tmp_path / "hf", expected)


@pytest.mark.usefixtures("small_experts")
def test_experts_of_torchtitan_02_are_refused(tmp_path: Path, tokenizer_path: Path) -> None:
    model = {"name": "kimi_k2_7", "flavor": "moonlight-16B-A3B"}
    checkpoint, _ = save_run(tmp_path, tokenizer_path, **model)
    save_as_02(checkpoint)

    with pytest.raises(ConfigError, match=r"step-7: TorchTitan 0\.2 wrote this checkpoint of kimi"):
        export(checkpoint, tmp_path / "hf", config=None, dtype="float32")


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
    assert len({file.stat().st_mode for file in (tmp_path / "hf").iterdir()}) == 1
    with torch.no_grad():
        torch.testing.assert_close(model.float()(TOKENS).logits, expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"flavor": "1B"}, r"step-7: holds another model than .*config\.toml describes"),
        ({"vocab_size": 192}, r"step-7: holds another model .*\(Size mismatch"),
        ({"name": "deepseek_v3"}, "deepseek_v3 debugmodel cannot be exported: .* by softmax"),
        ({"name": "gpt_oss"}, "gpt_oss debugmodel cannot be exported: .* plus a bias per expert"),
        (
            {"name": "qwen3", "flavor": "debugmodel_moe"},
            r"_moe cannot .* dense .* llama3 and qwen3",
        ),
        ({"name": "kimi_k2_7", "flavor": "Kimi-VL-A3B"}, "Kimi-VL-A3B .*: it has a vision encoder"),
        (
            {"name": "muse_glimmer"},
            "muse_glimmer debugmodel .* config.json for transformers is not known",
        ),
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
    with pytest.raises(ConfigError, match=r"step-8: there is no such folder, expected the folder"):
        export(checkpoint.with_name("step-8"), tmp_path / "hf", config=None, dtype="float32")
    with pytest.raises(ConfigError, match="expected a new folder, or an empty one"):
        export(checkpoint, checkpoint, config=None, dtype="float32")
    (tmp_path / "config.toml").unlink()
    with pytest.raises(ConfigError, match=r"found no config\.toml of its run .* with --config"):
        export(checkpoint, tmp_path / "hf", config=None, dtype="float32")

"""TorchTitan's models, for the vocabulary of a tokenizer, built without their weights."""

import importlib
import sys
from pathlib import Path
from runpy import run_path

import pytest
import torch
from torch import nn
from torchtitan.models.common.moe import GroupedExperts
from torchtitan.protocols.model_spec import ModelSpec

from blendtitan.errors import ConfigError
from blendtitan.settings import known_models
from blendtitan.titan.model import MODELS, build_model_spec

VOCAB_SIZE = 192
SCRIPT = Path(__file__).parents[2] / "scripts/write_known_models.py"


def built(spec: ModelSpec) -> nn.Module:
    with torch.device("meta"):
        return spec.model.build()


DEBUG_FLAVORS = [
    *((name, "debugmodel") for name in MODELS),
    ("qwen3", "debugmodel_moe"),
    ("muse_glimmer", "debugmodel_mm"),
]


def needs(name: str) -> None:
    try:
        importlib.import_module(f"torchtitan.models.{name}")
    except ModuleNotFoundError as error:
        pytest.skip(f"{name} needs {error.name}")


def test_the_models_are_those_that_torchtitan_registers_but_for_images() -> None:
    assert {"llama3", "qwen3", "deepseek_v3", "gpt_oss"} < set(MODELS)
    assert "flux" not in MODELS


@pytest.mark.parametrize(("name", "flavor"), DEBUG_FLAVORS)
def test_the_vocabulary_follows_the_tokenizer(name: str, flavor: str) -> None:
    needs(name)
    model = built(build_model_spec(name, flavor, vocab_size=VOCAB_SIZE))

    hidden = torch.empty(1, 2, model.lm_head.in_features, device="meta")
    tokens = torch.empty(1, 2, dtype=torch.long, device="meta")
    tables = [m for m in model.tok_embeddings.modules() if isinstance(m, nn.Embedding)]
    assert [table.num_embeddings for table in tables] == [VOCAB_SIZE]
    assert model.tok_embeddings(tokens).shape == hidden.shape
    assert model.lm_head(hidden).shape[-1] == VOCAB_SIZE


def test_a_model_that_needs_another_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchtitan.models.qwen3_5", None)
    with pytest.raises(ConfigError, match=r"model\.name is 'qwen3_5', which needs a package"):
        build_model_spec("qwen3_5", "debugmodel", vocab_size=VOCAB_SIZE)


def test_llama_2_is_the_published_model() -> None:
    """As many key heads as query heads, and plain rotary frequencies."""
    spec = build_model_spec("llama3", "Llama-2-7b", vocab_size=32000)
    model = built(spec)

    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    rope = spec.model.to_dict()["layers"][0]["attention"]["rope"]
    assert (spec.name, spec.flavor) == ("llama3", "Llama-2-7b")
    assert sum(weight.numel() for weight in model.parameters()) == 6_738_415_616
    assert shapes["layers.31.feed_forward.w1.weight"] == (11008, 4096)
    assert (rope["theta"], rope["scaling"], rope["max_seq_len"]) == (10000.0, "none", 4096)


def test_experts_use_the_requested_backend() -> None:
    standard = build_model_spec("deepseek_v3", "debugmodel", vocab_size=VOCAB_SIZE)
    chosen = build_model_spec(
        "deepseek_v3", "debugmodel", vocab_size=VOCAB_SIZE, expert_backend="minimal_async_ep"
    )

    assert any(standard.traverse(GroupedExperts.Config))
    assert "MinimalAsyncEP" in repr(chosen.model)
    assert "MinimalAsyncEP" not in repr(standard.model)


def test_a_backend_for_experts_is_refused_where_there_are_none() -> None:
    with pytest.raises(
        ConfigError, match=r"expert_parallel_comm_backend is 'deepep', .*no experts"
    ):
        build_model_spec("llama3", "debugmodel", vocab_size=VOCAB_SIZE, expert_backend="deepep")


def test_the_models_that_the_launcher_knows_are_those_of_torchtitan() -> None:
    """If this fails, run scripts/write_known_models.py."""
    found = run_path(str(SCRIPT))["known_models"]()
    known = {name: flavors for name, flavors in known_models.MODELS.items() if found.get(name)}

    # Some models need packages that may be missing.
    assert {name: flavors for name, flavors in found.items() if flavors} == known
    assert found.keys() == known_models.MODELS.keys()

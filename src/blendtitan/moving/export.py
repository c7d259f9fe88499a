"""A model, tokenizer and ``config.json`` as Hugging Face's transformers load them."""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blendtitan.checkpoints import METADATA, damage_to
from blendtitan.errors import ConfigError, ResumeError, requires_extra
from blendtitan.moving.hf_config import hf_config
from blendtitan.moving.hf_tokenizer import write_tokenizer
from blendtitan.settings.batches import model_vocab_size
from blendtitan.settings.toml import RESOLVED, Values, read_keys
from blendtitan.storage.atomic_files import write_atomically, writing
from blendtitan.tokenizers import Tokenizer, build_tokenizer
from blendtitan.visible import counted

if TYPE_CHECKING:
    import torch
    from torchtitan.protocols.model_spec import ModelSpec

    Weights = Mapping[str, torch.Tensor]

_HEAD_02 = "output.weight"
"""TorchTitan 0.2's name of the last layer, which tells its checkpoints from those of 0.3."""

_FLOAT32 = "e_score_correction_bias"
"""Biases that transformers keeps in float32. Load balancing moves them in small steps."""

_MOST_FILE_BYTES = 5_000_000_000
"""Size of a file of weights, as transformers writes them; a larger tensor has its own file."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A model that was written."""

    folder: Path
    num_parameters: int
    vocab_size: int
    num_files: int

    def line(self) -> str:
        """The result as a sentence."""
        return (
            f"{self.folder}: {self.num_parameters:,} parameters in "
            f"{counted(self.num_files, 'file')}, with a vocabulary of {self.vocab_size:,}."
        )


def export(checkpoint: Path, folder: Path, *, config: Path | None, dtype: str) -> Exported:
    """Write the model of a checkpoint into a new folder, for transformers.

    Args:
        checkpoint: Folder of one checkpoint of a run.
        folder: Folder to create.
        config: TOML file of the run. None: ``config.toml`` in the run's folder.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        ConfigError: The configuration, the model or the folder cannot be used.
        ResumeError: The checkpoint is damaged, or of another model.
        OutputError: The folder cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: expected a new folder, or an empty one, for the export.")
    path = config or _config_of(checkpoint)
    values = read_keys(path)
    if damage := damage_to(checkpoint, step=None):
        raise ResumeError(damage)
    tokenizer = build_tokenizer({"model": _section(values, "model")})
    vocab_size_02 = _vocab_size_02(checkpoint)
    spec = _model_spec(values, tokenizer, vocab_size_02)
    described = hf_config(values["model.name"], spec.flavor, spec.model, tokenizer)
    is_02 = vocab_size_02 is not None
    if is_02 and "n_routed_experts" in described:
        raise ConfigError(
            f"{checkpoint}: TorchTitan 0.2 wrote this checkpoint of {values['model.name']}. Of its "
            f"models, llama3 and dense qwen3 can be exported."
        )
    weights = _hf_weights(spec, checkpoint, path, is_02=is_02)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_tokenizer(tokenizer, folder)
        num_files = _write_weights(weights, folder, dtype)
        text = json.dumps(described | {"torch_dtype": dtype}, indent=2)
        write_atomically(folder / "config.json", text.encode())
    num_parameters = sum(weight.numel() for weight in weights.values())
    return Exported(folder, num_parameters, described["vocab_size"], num_files)


def _config_of(checkpoint: Path) -> Path:
    """The complete configuration that a run wrote into a folder above its checkpoints."""
    if not (checkpoint / METADATA).is_file():
        found = f"has no {METADATA}" if checkpoint.exists() else "there is no such folder"
        raise ConfigError(
            f"{checkpoint}: {found}, expected the folder of one complete checkpoint, "
            f"such as outputs/checkpoint/step-1000"
        )
    for parent in checkpoint.absolute().parents:
        if (parent / RESOLVED).is_file():
            return parent / RESOLVED
    raise ConfigError(
        f"{checkpoint}: found no {RESOLVED} of its run in a folder above it. Name a TOML file "
        f"with the [model] section of the run with --config."
    )


def _section(values: Values, section: str) -> dict[str, Any]:
    parts = ((key.rpartition("."), value) for key, value in values.items())
    return {name: value for (found, _, name), value in parts if found == section}


def _vocab_size_02(checkpoint: Path) -> int | None:
    """The model's vocabulary if TorchTitan 0.2 wrote the checkpoint; its flavors determine it."""
    with requires_extra("train", "blendtitan export"):
        from torch.distributed.checkpoint.filesystem import FileSystemReader

    head: Any = FileSystemReader(checkpoint).read_metadata().state_dict_metadata.get(_HEAD_02)
    return None if head is None else head.size[0]


def _model_spec(values: Values, tokenizer: Tokenizer, vocab_size_02: int | None) -> "ModelSpec":
    with requires_extra("train", "blendtitan export"):
        from blendtitan.titan import prepare

        prepare()
        from blendtitan.titan.model import build_model_spec
        from blendtitan.titan.upstream import check_versions

    check_versions("0.3")
    model = _section(values, "model")
    vocab_size = vocab_size_02 or model_vocab_size(
        model["vocab_size"], tokenizer_vocab_size=tokenizer.get_vocab_size()
    )
    return build_model_spec(model["name"], model["flavor"], vocab_size=vocab_size)


def _hf_weights(spec: "ModelSpec", checkpoint: Path, config: Path, *, is_02: bool) -> "Weights":
    """The weights of a checkpoint under the names and in the form of transformers."""
    import torch
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    with torch.device("meta"):
        wanted = spec.model.build().state_dict()
    loaded = {name: torch.empty_like(weight, device="cpu") for name, weight in wanted.items()}
    stored = {_name_in_02(name) if is_02 else name: weight for name, weight in loaded.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, that there is only one process
            load(stored, checkpoint_id=checkpoint)
    except CheckpointException as error:
        _, (cause, _) = next(iter(error.failures.items()))
        raise ResumeError(
            f"{checkpoint}: holds another model than {config} describes ({cause}). Name "
            f"the configuration of the run that wrote it with --config. Checkpoints of TorchTitan "
            f"0.2 and 0.3 can be exported."
        ) from error
    assert spec.state_dict_adapter is not None
    return spec.state_dict_adapter(spec.model, None).to_hf(loaded)


def _name_in_02(name: str) -> str:
    if name == "lm_head.weight":
        return _HEAD_02
    return name.replace(".qkv_linear.", ".")


def _write_weights(weights: "Weights", folder: Path, dtype: str) -> int:
    """Write the weights, and the index of their files if there are several; return their number."""
    import torch
    from safetensors.torch import save_file

    kind: torch.dtype = getattr(torch, dtype)
    groups = list(_groups(weights, kind.itemsize))
    file_of: dict[str, str] = {}
    for number, names in enumerate(groups, start=1):
        file = f"model-{number:05}-of-{len(groups):05}.safetensors"
        file = "model.safetensors" if len(groups) == 1 else file
        file_of |= dict.fromkeys(names, file)
        kinds = {name: torch.float32 if name.endswith(_FLOAT32) else kind for name in names}
        part = {name: weights[name].to(kinds[name]).contiguous() for name in names}
        save_file(part, folder / file, metadata={"format": "pt"})
        # Whoever may read the folder; ``save_file`` allows only the owner.
        (folder / file).chmod(folder.stat().st_mode & 0o666)
    if len(groups) > 1:
        num_bytes = kind.itemsize * sum(weight.numel() for weight in weights.values())
        index = {"metadata": {"total_size": num_bytes}, "weight_map": file_of}
        text = json.dumps(index, indent=2).encode()
        write_atomically(folder / "model.safetensors.index.json", text)
    return len(groups)


def _groups(weights: "Weights", item_bytes: int) -> Iterator[list[str]]:
    """Names of the weights of each file, in their order."""
    group: list[str] = []
    room = 0
    for name, weight in weights.items():
        num_bytes = weight.numel() * item_bytes
        if group and num_bytes > room:
            yield group
            group = []
        room = (room if group else _MOST_FILE_BYTES) - num_bytes
        group.append(name)
    yield group

"""Public TOML files of TorchTitan, by their keys: each is read, or what it asks for is explained.

``old_files.json`` has the files of the releases 0.1.0 to 0.2.2 and of the BlendCorpus integration,
and one file, by its date, for each key and kind of value that TorchTitan's repository had before
and between. Their texts are left out, as are numbers, names and paths that nothing depends on.
"""

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from blendtitan.errors import ConfigError
from blendtitan.settings.old_files import present_name
from blendtitan.settings.old_keys import CONVERSIONS, REMOVED, TRANSLATED
from blendtitan.settings.toml import HINTS, checked_values, read_values
from blendtitan.titan import cpu
from blendtitan.titan.assemble import build_config
from blendtitan.titan.converters import TensorwiseFloat8LinearConverter, converters_of
from blendtitan.titan.toml import read_settings

TABLE = json.loads(Path(__file__).with_name("old_files.json").read_text())
RELEASES = {"0.1.0", "0.2.0", "0.2.1", "0.2.2", "BlendCorpus integration"}


@dataclass(frozen=True)
class OldFile:
    """A file of the table."""

    path: str
    versions: str
    lines: tuple[str, ...]
    """``section.key = value``."""

    @classmethod
    def of_row(cls, row: list[str]) -> "OldFile":
        """Resolve the numbers of its lines: ``0-2 5`` is 0, 1, 2 and 5."""
        path, versions, numbers = row
        spans = [map(int, span.split("-")) for span in numbers.split()]
        chosen = [n for first, *last in spans for n in range(first, (last or [first])[0] + 1)]
        return cls(path, versions, tuple(TABLE["lines"][number] for number in chosen))

    def __str__(self) -> str:
        return f"{self.path} of {self.versions}"

    @property
    def is_released(self) -> bool:
        """Whether a release, or the integration, has it."""
        return bool({*self.versions.split(", ")} & RELEASES)

    @property
    def is_built(self) -> bool:
        """Whether it is read, and TorchTitan 0.3 has its model."""
        absent = {f'model.name = "{name}"' for name in ("llama", "llama2", "llama4")}
        has_model = any(line.startswith("model.name") for line in self.lines)
        return has_model and not reasons(self) and not absent & {*self.lines}

    def write(self, folder: Path) -> Path:
        """The file, with dotted keys instead of sections."""
        path = folder / "run.toml"
        path.write_text("\n".join(self.lines))
        return path


FILES = [OldFile.of_row(row) for row in TABLE["files"]]

# What TorchTitan 0.3 does not do, or not from TOML. A file with such a line is refused.
EXPLAINED = {
    "encoder.": "flux, which generates images",
    "training.img_size": "flux, which generates images",
    "training.guidance": "flux, which generates images",
    "data.": "an experiment that only TorchTitan 0.2 trains",
    "hf_transformers.": "an experiment that only TorchTitan 0.2 trains",
    "job.custom_config_module": "train with --module",
    'experimental.custom_args_module = "torchtitan.experiments.flux': "train with --module",
    'experimental.custom_args_module = "torchtitan.experiments.vlm': "train with --module",
    'experimental.custom_args_module = "torchtitan.experiments.deepseek': "train with --module",
    'experimental.custom_args_module = "torchtitan.components.ft': "train with --module",
    "parallelism.expert_tensor_parallel_degree = 8": "parallelism.expert_parallel_degree",
    "experimental.torch_spmd = true": "parallelism.spmd_backend",
    "training.enable_selective_ac": "activation_checkpoint.mode",
    "training.warmup_pct": "lr_scheduler.warmup_steps",
}


def reasons(file: OldFile) -> set[str]:
    """Why a file is refused; empty if it is read."""
    return {
        why
        for start, why in EXPLAINED.items()
        if any(line.startswith(start) for line in file.lines)
    }


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_public_file_is_read_or_refused_with_a_reason(file: OldFile, tmp_path: Path) -> None:
    path = file.write(tmp_path)
    if not reasons(file):
        assert read_values(path)
        return
    with pytest.raises(ConfigError) as error:
        read_values(path)

    assert "TorchTitan 0.3 has no such setting" in str(error.value)
    assert "Did you mean" not in str(error.value)


def test_the_language_models_of_the_releases_are_read() -> None:
    """Except for the two that TorchTitan 0.3 does not have, and semi-synchronous training."""
    released = [file for file in FILES if file.is_released]
    read = [file for file in released if not reasons(file)]
    language_models = re.compile(r"(models|blendcorpus)/(llama3|deepseek_v3|qwen3|gpt_oss|train)")
    refused = {file.path for file in released if reasons(file)}

    assert (len(FILES), len(released), len(read)) == (131, 61, 38)
    assert not [path for path in refused if language_models.search(path) and "_ft/" not in path]


@pytest.mark.parametrize("file", [file for file in FILES if file.is_built], ids=str)
def test_a_public_file_gives_a_configuration_of_the_trainer(
    file: OldFile, tmp_path: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its values fit the model, which is built without weights. Float8 needs torchao and a GPU."""
    monkeypatch.setattr(cpu, "is_used", lambda: False)
    arguments = ["--job.config_file", str(file.write(tmp_path))]
    blend = ["--training.dataset", "blendcorpus", "--blendcorpus.data_file_list", "list.txt"]
    tokenizer = ["--model.tokenizer_path", str(tokenizer_path), "--model.tokenizer_backend", "sp"]
    config = build_config(read_settings([*arguments, *blend, *tokenizer, "--model.converters", ""]))

    assert config.model_spec is not None
    assert f'model.flavor = "{config.model_spec.flavor}"' in file.lines


def test_the_largest_llama_gathers_its_weights_in_float8_in_every_release(tmp_path: Path) -> None:
    """Its file asks for it and names no recipe."""
    largest = [file for file in FILES if file.path.endswith("llama3_405b.toml")]
    for file in largest:
        settings = read_settings(["--job.config_file", str(file.write(tmp_path))])
        (converter,) = converters_of(settings).values()

        assert isinstance(converter, TensorwiseFloat8LinearConverter.Config)
        assert converter.recipe_name == "tensorwise"
        assert converter.enable_fsdp_float8_all_gather
        assert converter.filter_fqns == ["lm_head"] or not file.is_released
    assert {"0.1.0", "BlendCorpus integration"} <= {file.versions for file in largest}


@pytest.mark.parametrize("line", TABLE["lines"])
def test_no_line_of_a_public_file_is_silently_ignored(
    line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It sets a key, or matches what TorchTitan 0.3 does anyway, or is named."""
    key, _, text = line.partition(" = ")
    given = tomllib.loads(f"value = {text}")["value"]
    name = TRANSLATED[key][0] if key in TRANSLATED else present_name(key)
    removed = REMOVED.get(key) or REMOVED.get(name)
    values, told = {}, ""
    try:
        values = checked_values([(key, given)], HINTS, "file")
    except ConfigError as error:
        told = str(error)

    is_set = name in values or (key in CONVERSIONS and "model.converters" in values)
    is_off = key in CONVERSIONS and given in ("", False)
    is_present_behaviour = removed is not None and given in removed.without_effect
    assert is_set or is_off or is_present_behaviour or key in told + caplog.text

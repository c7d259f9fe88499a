from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from blendtitan.identity import TokenizerIdentity
from blendtitan.settings.toml import toml_of
from blendtitan.storage.list_forms import find_shards
from tests.conftest import WriteBlend, write_record

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(
    tmp_path: Path,
    write_blend: WriteBlend,
    word_tokenizer: Path,
    word_identity: TokenizerIdentity,
) -> WriteRun:
    """``write_run(corpora, training={"steps": 5}, blendcorpus={"seed": 7})`` writes a TOML file."""

    def write(corpora: dict[str, tuple[float, list[int]]], **sections: Mapping[str, Any]) -> Path:
        path = tmp_path / "run.toml"
        file_list = write_blend(corpora, seq_length=8).data_file_list
        for prefix in find_shards(tmp_path):
            write_record(prefix, word_identity)
        settings: dict[str, dict[str, Any]] = {
            "model": {"tokenizer_backend": "hf", "tokenizer_path": str(word_tokenizer)},
            "training": {"seq_len": 8, "local_batch_size": 2, "global_batch_size": 8, "steps": 10},
            "blendcorpus": {"data_file_list": str(file_list), "seed": 7, "split": "90,10,0"},
        }
        for name, section in sections.items():
            settings[name] = settings.get(name, {}) | dict(section)
        path.write_text(
            "\n".join(
                line
                for name, section in settings.items()
                for line in [f"[{name}]", *(f"{k} = {toml_of(v)}" for k, v in section.items())]
            )
        )
        return path

    return write

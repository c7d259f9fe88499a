import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers.models import WordLevel

from blendtitan.identity import TokenizerIdentity
from blendtitan.run.values import toml_of
from blendtitan.storage.list_forms import find_shards
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.records import TokenizerRecord, encode_record, record_path
from blendtitan.storage.writer import encode_index
from blendtitan.tokenizers import identity_of, load_tokenizer
from tests.conftest import EOD, WriteBlend, WriteShard

WriteUncounted = Callable[..., Path]
WriteRun = Callable[..., Path]


def write_record(prefix: Path, tokenizer: TokenizerIdentity) -> None:
    """Record a tokenizer beside a shard, as if it had made it."""
    index = ShardIndex.open(prefix)
    record = TokenizerRecord(tokenizer, index.num_documents, index.num_tokens)
    record_path(prefix).write_bytes(encode_record(record))


@pytest.fixture
def write_uncounted(write_shard: WriteShard) -> WriteUncounted:
    """Write a shard whose lengths do not count the last token of each document."""

    def write(name: str, documents: list[list[int]], dtype: str = "<u2") -> Path:
        prefix = write_shard(name, documents, dtype)
        lens = np.array([len(document) - 1 for document in documents], np.int32)
        Path(f"{prefix}.idx").write_bytes(b"".join(encode_index(lens, dtype=np.dtype(dtype))))
        return prefix

    return write


@pytest.fixture(scope="session")
def word_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose id 5 is the word ``w5``; its EOS is ``EOD``."""
    folder = tmp_path_factory.mktemp("words")
    vocabulary = {f"w{i}": i for i in range(20_000) if i != EOD} | {"</s>": EOD}
    tokenizer = tokenizers.Tokenizer(WordLevel(vocabulary, unk_token="w0"))
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return folder


@pytest.fixture(scope="session")
def word_identity(word_tokenizer: Path) -> TokenizerIdentity:
    """Of ``word_tokenizer``."""
    return identity_of(load_tokenizer(word_tokenizer), EOD)


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

"""Two small tokenizers: SentencePiece, and byte-level BPE in a ``tokenizer.json``."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from blendtitan.prepare.demo import train_tokenizer

TEXT = Path(json.__file__).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def sp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sp") / "tokenizer.model"
    path.write_bytes(train_tokenizer(TEXT.splitlines(), vocab_size=600))
    return path


@pytest.fixture(scope="session")
def hf_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE folder, its EOS named by a dictionary as transformers writes it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    # Settings that some published files carry, and that must not touch documents.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    folder = tmp_path_factory.mktemp("hf")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": "<s>", "unk_token": "<unk>"})
    )
    return folder

"""Small tokenizers of many kinds, trained on text of this machine, and shards that they made."""

import io
import json
import pydoc_data.topics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from blendtitan.storage.writer import ShardWriter
from blendtitan.tokenizers import Tokenizer as Engine
from blendtitan.tokenizers import identity_of, load_tokenizer

TOPICS = list(pydoc_data.topics.topics.values())
TRAIN, DOCUMENTS = TOPICS[::2][:24], TOPICS[1::2][:24]

GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"


def options_of(options: dict[str, Any]) -> dict[str, Any]:
    """Options of SentencePiece, with our defaults."""
    return {"hard_vocab_limit": False, "byte_fallback": True} | options


def _sentencepiece(folder: Path, **options: Any) -> Path:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(TRAIN).splitlines()),
        model_writer=model,
        minloglevel=2,
        num_threads=1,
        **options_of(options),
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return folder


def _saved(folder: Path, tokenizer: Tokenizer) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return folder


def _byte_level(folder: Path, size: int, pattern: str | None = None) -> Path:
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    tokenizer.pre_tokenizer = byte_level
    if pattern is not None:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAIN, trainer)
    return _saved(folder, tokenizer)


def _word_piece(folder: Path) -> Path:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=1500, special_tokens=["[UNK]", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(TRAIN, trainer)
    return _saved(folder, tokenizer)


def _metaspace(folder: Path) -> Path:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<unk>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(TRAIN, trainer)
    return _saved(folder, tokenizer)


def _reordered(folder: Path, source: Path) -> Path:
    """The same pieces and merges with other ids, as between two releases of one family."""
    content = json.loads((source / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    pieces = sorted(vocab, key=lambda piece: vocab[piece])
    moved = [pieces[0], *pieces[257:], *pieces[1:257]]
    content["model"]["vocab"] = {piece: at for at, piece in enumerate(moved)}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of eleven tokenizers, all different."""

    def new(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    words: dict[str, Any] = {"split_by_whitespace": True, "remove_extra_whitespaces": False}
    plain = {"normalization_rule_name": "identity"} | words
    found = {
        "sp unigram": _sentencepiece(new("unigram"), vocab_size=1500, model_type="unigram"),
        "sp unigram, larger": _sentencepiece(new("larger"), vocab_size=2500, model_type="unigram"),
        "sp unigram, case folded": _sentencepiece(
            new("folded"), vocab_size=1500, normalization_rule_name="nmt_nfkc_cf"
        ),
        "sp bpe": _sentencepiece(new("bpe"), vocab_size=1500, model_type="bpe", **plain),
        "sp bpe, smaller": _sentencepiece(new("small"), vocab_size=900, model_type="bpe", **plain),
        "byte-level": _byte_level(new("bytes"), 2000),
        "byte-level, smaller": _byte_level(new("smaller"), 1200),
        "byte-level, digits by three": _byte_level(new("digits"), 2000, GPT4),
        "word pieces": _word_piece(new("words")),
        "metaspace": _metaspace(new("metaspace")),
    }
    found["byte-level, reordered"] = _reordered(new("reordered"), found["byte-level"])
    return found


@pytest.fixture(scope="session")
def tokenizers(folders: dict[str, Path]) -> dict[str, Engine]:
    """The tokenizers of ``folders``."""
    return {name: load_tokenizer(folder) for name, folder in folders.items()}


WriteText = Callable[..., Path]


@pytest.fixture
def write_text(tmp_path: Path) -> WriteText:
    """``write_text("web/a", tokenizer)`` writes the documents as a shard."""

    def write(name: str, tokenizer: Engine, *, recorded: bool = False) -> Path:
        own = identity_of(tokenizer, tokenizer.eos_id) if recorded else None
        prefix = tmp_path / name
        with ShardWriter.create(prefix, dtype=np.dtype("<u2"), tokenizer=own) as writer:
            for text in DOCUMENTS:
                writer.add_document(np.array([*tokenizer.encode(text), tokenizer.eos_id]))
        return prefix

    return write

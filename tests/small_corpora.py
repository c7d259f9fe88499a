"""Corpora and a tokenizer that a debug model learns a little of in a few steps."""

from pathlib import Path

import numpy as np
import sentencepiece

from blendtitan.storage.writer import ShardWriter

EOD = 2
VOCAB_SIZE = 96


def train_tokenizer(folder: Path) -> Path:
    """A SentencePiece model of 96 ids in an existing folder; EOS is 2."""
    rng = np.random.default_rng(0)
    words = ("".join(map(chr, 97 + rng.integers(0, 26, 6))) for _ in range(500))
    (folder / "text").write_text("\n".join(words))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=VOCAB_SIZE,
        minloglevel=2,
    )
    return folder / "tokenizer.model"


def write_corpora(folder: Path, *, num_documents: int = 40) -> Path:
    """Two corpora of two shards each, of so many documents; returns their file list."""
    lines = []
    for c, corpus in enumerate(("code", "web")):
        for place in range(2):
            rng = np.random.default_rng([c, place])
            with ShardWriter.create(folder / f"{corpus}_{place}", dtype=np.dtype("<u2")) as writer:
                for _ in range(num_documents):
                    start, size = rng.integers(3, VOCAB_SIZE), rng.integers(20, 60)
                    tokens = 3 + (start + (c + 1) * np.arange(size)) % (VOCAB_SIZE - 3)
                    writer.add_document(np.append(tokens, EOD))
            lines.append(f"{2 - c} {corpus}_{place} {corpus}")
    path = folder / "file_list.txt"
    path.write_text("\n".join(lines))
    return path


def write_data(folder: Path) -> Path:
    """Two corpora and their tokenizer in a folder: ``file_list.txt`` and ``tokenizer/``."""
    (folder / "tokenizer").mkdir()
    train_tokenizer(folder / "tokenizer")
    write_corpora(folder, num_documents=60)
    return folder

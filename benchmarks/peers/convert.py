"""Writes the source ``one`` in the formats of peers that have their own; run in their environment.

    python convert.py SOURCE SEQ_LEN...

SOURCE/cache/litdata_format       all tokens, in chunks of 64 MB as litdata's documentation advises
SOURCE/cache/mds_format_SEQ_LEN   rows of SEQ_LEN + 1 tokens
SOURCE/cache/text_format          real text, and a tokenizer trained on it, for TorchTitan's loader
"""

import json
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from engines import mosaic  # noqa: F401  it makes the import of streaming work
from litdata.streaming import TokensLoader
from litdata.streaming.cache import Cache
from sources import Source
from streaming import MDSWriter
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CHUNK_TOKENS = 1 << 25
TEXT_BYTES = 40_000_000
VOCAB_SIZE = 16_000


def main(source: Source, seq_lens: list[int]) -> None:
    _once(source.cache("litdata_format"), lambda folder: _write_litdata(source, folder))
    for seq_len in seq_lens:
        _once(
            source.cache(f"mds_format_{seq_len}"),
            lambda folder, seq_len=seq_len: _write_mds(source, folder, seq_len),
        )
    _once(source.cache("text_format"), _write_text)


def _once(folder: Path, write: Callable[[Path], None]) -> None:
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
        (folder / "complete").touch()


def _shards(source: Source) -> Iterator[np.ndarray]:
    for prefix in source.prefixes:
        yield np.fromfile(f"{prefix}.bin", np.uint16)


def _write_litdata(source: Source, folder: Path) -> None:
    cache = Cache(str(folder), chunk_size=CHUNK_TOKENS, item_loader=TokensLoader())
    for number, tokens in enumerate(_shards(source)):
        cache[number] = tokens
    cache.done()
    cache.merge()


def _write_mds(source: Source, folder: Path, seq_len: int) -> None:
    columns = {"tokens": f"ndarray:uint16:{seq_len + 1}"}
    with MDSWriter(out=str(folder), columns=columns, exist_ok=True) as writer:
        for tokens in _shards(source):
            for start in range(0, len(tokens) - seq_len, seq_len):
                writer.write({"tokens": tokens[start : start + seq_len + 1]})


def _write_text(folder: Path) -> None:
    texts: list[str] = []
    num_chars = 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        text = path.read_text(errors="replace")
        texts.append(text)
        num_chars += len(text)
        if num_chars > TEXT_BYTES:
            break
    with open(folder / "text.jsonl", "w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=["<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(texts[:: 1 + len(texts) // 400], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main(Source.read(Path(sys.argv[1])), [int(word) for word in sys.argv[2:]])

"""Prints the seconds in which one library encodes the documents, read before, on one core.

python library_alone.py LIBRARY TOKENIZER TEXT.jsonl
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson

BATCH = 64


def main(library: str, tokenizer: Path, text: Path) -> None:
    encode = ENCODERS[library](tokenizer)
    documents = [orjson.loads(line)["text"] for line in text.read_bytes().splitlines()]
    batches = [documents[at : at + BATCH] for at in range(0, len(documents), BATCH)]
    start = time.perf_counter()
    for batch in batches:
        encode(batch)
    print(time.perf_counter() - start)


def _sentencepiece(path: Path) -> Callable[[list[str]], object]:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return lambda texts: model.encode(texts, return_type="numpy", num_threads=1)


def _tokenizers(path: Path) -> Callable[[list[str]], object]:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return lambda texts: tokenizer.encode_batch_fast(texts, add_special_tokens=False)


def _gigatoken(path: Path) -> Callable[[list[str]], object]:
    import gigatoken

    tokenizer = gigatoken.Tokenizer(str(path))
    return lambda texts: [tokenizer.encode(text) for text in texts]


ENCODERS = {"sentencepiece": _sentencepiece, "tokenizers": _tokenizers, "gigatoken": _gigatoken}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

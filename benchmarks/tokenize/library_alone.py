"""Prints the seconds in which one library encodes the documents, read before, on one core each.

python library_alone.py LIBRARY TOKENIZER TEXT.jsonl PROCESSES
"""

import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

BATCH = 64


def main(library: str, tokenizer: Path, text: Path, num_processes: int) -> None:
    context = multiprocessing.get_context("spawn")
    start_together = context.Barrier(num_processes)
    seconds = context.Array("d", num_processes)
    processes = [
        context.Process(
            target=_encode, args=(library, tokenizer, text, start_together, seconds, process)
        )
        for process in range(num_processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert all(process.exitcode == 0 for process in processes)
    print(max(seconds))


def _encode(
    library: str, tokenizer: Path, text: Path, start_together: Any, seconds: Any, process: int
) -> None:
    encode = ENCODERS[library](tokenizer)
    documents = [orjson.loads(line)["text"] for line in text.read_bytes().splitlines()]
    batches = [documents[at : at + BATCH] for at in range(0, len(documents), BATCH)]
    start_together.wait()
    start = time.perf_counter()
    for batch in batches:
        encode(batch)
    seconds[process] = time.perf_counter() - start


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
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))

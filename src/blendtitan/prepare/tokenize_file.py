"""One text file to one shard."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blendtitan.prepare.jsonl import BadLine, read_texts
from blendtitan.prepare.plan import Job
from blendtitan.storage.writer import ShardWriter, token_dtype
from blendtitan.tokenizers import Tokenizer

SHOWN_REJECTS = 20
"""Bad lines of one file that are reported one by one; the others are counted."""

_BATCH_CHARS = 1 << 20


@dataclass(slots=True)
class Rejects:
    """The bad lines of a file: all are counted, the first are kept."""

    count: int = 0
    first: list[BadLine] = field(default_factory=list)

    def add(self, line: BadLine) -> None:
        """Count one more bad line."""
        self.count += 1
        if len(self.first) < SHOWN_REJECTS:
            self.first.append(line)


@dataclass(frozen=True, slots=True)
class TokenizedFile:
    """What became of one input file. Without documents, there is no shard."""

    job: Job
    num_documents: int
    num_tokens: int
    rejects: Rejects


class _NoShardError(Exception):
    """Leaves the writer's block, so that it deletes what it wrote."""


def tokenize_file(
    job: Job,
    tokenizer: Tokenizer,
    *,
    key: str = "text",
    max_rejects: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> TokenizedFile:
    """Turn one file into one shard: each text a document, followed by EOD.

    Without documents, or with more than ``max_rejects`` bad lines, nothing is left behind. All
    bad lines are found in one go: after too many, texts are read but no longer tokenised.

    Raises:
        InputError: The file cannot be read to its end.
    """
    rejects = Rejects()
    texts = _good_texts(read_texts(job.input_path, key=key, advance=advance), rejects)
    num_documents = num_tokens = 0
    writer = ShardWriter.create(job.prefix, dtype=token_dtype(tokenizer.vocab_size))
    with suppress(_NoShardError), writer:
        for batch in _batches(texts):
            if rejects.count <= max_rejects:
                _add_documents(writer, *tokenizer.encode_batch(batch), eod_id=tokenizer.eos_id)
        if rejects.count > max_rejects or writer.num_documents == 0:
            raise _NoShardError
        num_documents, num_tokens = writer.num_documents, writer.num_tokens
    return TokenizedFile(job, num_documents, num_tokens, rejects)


def _good_texts(lines: Iterable[str | BadLine], rejects: Rejects) -> Iterator[str]:
    for line in lines:
        if isinstance(line, BadLine):
            rejects.add(line)
        else:
            yield line


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    num_chars = 0
    for text in texts:
        batch.append(text)
        num_chars += len(text)
        if num_chars >= _BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch


def _add_documents(
    writer: ShardWriter, ids: NDArray[np.int32], lens: NDArray[np.int32], *, eod_id: int
) -> None:
    with_eod = np.insert(ids, np.cumsum(lens), eod_id)
    for document in np.split(with_eod, np.cumsum(lens + 1)[:-1]):
        writer.add_document(document)

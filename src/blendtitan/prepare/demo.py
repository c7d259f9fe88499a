"""The demo: three corpora of real text, a tokenizer, shards and a file list, with no download.

DIR/text/CORPUS/*.jsonl          documents
DIR/tokenizer/tokenizer.model    trained on a sample of them
DIR/tokens/CORPUS/*.bin, *.idx   shards
DIR/demo.txt                     written first: where it is, all of these are the demo's
DIR/file_list.txt                written last: where it is, the demo is complete
"""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import orjson
import sentencepiece

from blendtitan.errors import ConfigError
from blendtitan.prepare.demo_text import code_texts, readme_texts, reference_texts
from blendtitan.prepare.mix import CorpusMix, mix
from blendtitan.prepare.shares import MixConfig
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.storage.atomic_files import read_note, write_atomically
from blendtitan.tokenizers import load_tokenizer
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

CORPORA: dict[str, Callable[[], Iterator[str]]] = {
    "code": code_texts,
    "reference": reference_texts,
    "readmes": readme_texts,
}

EPOCHS = {"code": 0.5, "reference": 2.0, "readmes": 4.0}
"""So that the shares are far from the sizes: code has most of the tokens."""

NUM_FILES = 4
"""Files of text, and so shards, of each corpus."""

VOCAB_SIZES = range(1024, 16_385)

_NOTE = "demo.txt"
_NOTE_TEXT = b"""\
Made by `blendtitan demo`, with all files in text, tokenizer and tokens, and file_list.txt.
While this file is here, an interrupted demo may be made anew, and replaces them.
"""

# The sample that the tokenizer is trained on: enough for a small vocabulary, read in seconds.
_SAMPLE_DOCUMENTS = 400
_SAMPLE_CHARS = 4_000


def prepare_demo(output: Path, *, vocab_size: int = 4096) -> list[CorpusMix] | None:
    """Make the demo in ``output``. An interrupted one is made anew, a complete one is kept.

    Returns:
        The corpora of the file list, or None where the demo was complete.

    Raises:
        ConfigError: ``vocab_size`` is out of range, or is not that of the complete demo; or the
            folder holds files of the demo's names that it did not make.
    """
    if vocab_size not in VOCAB_SIZES:
        raise ConfigError(
            f"the demo's vocabulary is to hold {vocab_size} ids, expected "
            f"{VOCAB_SIZES.start} to {VOCAB_SIZES.stop - 1}"
        )
    file_list, tokenizer = output / "file_list.txt", output / "tokenizer"
    if file_list.exists():
        _check_vocabulary(tokenizer, vocab_size)
        return None
    _check_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / _NOTE, _NOTE_TEXT)
    samples: list[str] = []
    for corpus, texts in CORPORA.items():
        documents = list(texts())
        write_jsonl(output / "text" / corpus, documents)
        samples += sample_lines(documents)
    model = train_tokenizer(samples, vocab_size=vocab_size)
    tokenizer.mkdir(exist_ok=True)
    write_atomically(tokenizer / "tokenizer.model", model)
    # What an interrupted demo left may be of another vocabulary.
    config = TokenizeConfig(tokenizer=tokenizer, overwrite=True)
    tokenize([output / "text"], output / "tokens", config)
    return mix([output / "tokens"], file_list, MixConfig(epochs=EPOCHS))


def write_jsonl(folder: Path, documents: list[str]) -> None:
    """Deal documents out to ``NUM_FILES`` files of JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for file_id in range(NUM_FILES):
        lines = [orjson.dumps({"text": text}) for text in documents[file_id::NUM_FILES]]
        write_atomically(folder / f"{file_id}.jsonl", b"\n".join([*lines, b""]))
    num_chars = sum(map(len, documents))
    logger.info("%s: %s documents, %s characters", folder, f"{len(documents):,}", f"{num_chars:,}")


def sample_lines(documents: list[str]) -> list[str]:
    """Lines of documents taken at even distances, of each no more than its beginning."""
    step = max(1, len(documents) // _SAMPLE_DOCUMENTS)
    beginnings = (text[:_SAMPLE_CHARS] for text in documents[::step])
    return [line for text in beginnings for line in text.splitlines() if line]


def train_tokenizer(lines: Iterable[str], *, vocab_size: int) -> bytes:
    """A SentencePiece model that gives every text back as it was: white space, any character."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=1,
    )
    return model.getvalue()


def _check_folder(output: Path) -> None:
    note = output / _NOTE
    if note.is_file() and "`blendtitan demo`" in read_note(note):
        return
    for name in (_NOTE, "text", "tokenizer", "tokens"):
        if os.path.lexists(output / name):
            raise ConfigError(
                f"{output / name}: exists already, and was not made by `blendtitan demo`, which "
                f"would write into it. Choose another --output, or move it away."
            )


def _check_vocabulary(tokenizer: Path, vocab_size: int) -> None:
    found = load_tokenizer(tokenizer).vocab_size
    if found != vocab_size:
        raise ConfigError(
            f"{tokenizer.parent}: holds a demo with a vocabulary of {found}, asked for is "
            f"{vocab_size}. Delete the folder, or choose another one."
        )

"""``blendtitan demo``: three corpora of real text, a tokenizer, shards and a file list, offline.

DIR/text/CORPUS/*.jsonl          documents
DIR/tokenizer/tokenizer.model    trained on a sample of them
DIR/tokens/CORPUS/*.bin, *.idx   shards
DIR/demo.txt                     written first; marks all of these files as the demo's
DIR/file_list.txt                written last; marks the demo as complete
"""

import ast
import importlib.metadata
import inspect
import io
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from tokenize import open as open_source

import orjson
import sentencepiece

from blendtitan.errors import ConfigError
from blendtitan.prepare.mix import CorpusMix, MixConfig, mix
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.storage.atomic_files import read_note, write_atomically
from blendtitan.tokenizers import load_tokenizer
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

EPOCHS = {"code": 0.5, "reference": 2.0, "readmes": 4.0}
"""Chosen so that the shares differ from the sizes: code has most of the tokens."""

NUM_FILES = 4
"""Files of text, and so shards, of each corpus."""

VOCAB_SIZES = range(1024, 16_385)

_NOTE = "demo.txt"
_NOTE_TEXT = b"""\
Made by `blendtitan demo`, with all files in text, tokenizer and tokens, and file_list.txt.
While this file is here, an interrupted demo may be made anew, and replaces them.
"""

# The tokenizer is trained on a sample: enough for a small vocabulary, read in seconds.
_SAMPLE_DOCUMENTS = 400
_SAMPLE_CHARS = 4_000

# Tests are long lists of odd inputs, and some are not valid Python. Installed packages differ
# between machines, and the topics of pydoc are part of another corpus.
_SKIPPED_FOLDERS = {
    *("test", "tests", "idle_test", "lib2to3"),
    *("site-packages", "dist-packages", "__pycache__", "pydoc_data"),
}


def code_texts() -> Iterator[str]:
    """The sources of the standard library, one document per file."""
    for path in _sources():
        text = _source(path)
        if text.strip():
            yield text


def reference_texts() -> Iterator[str]:
    """The language reference by topic, then the docstrings of the standard library.

    Docstrings are found by parsing, because importing a module may have side effects.
    """
    yield from (topics[name] for name in sorted(topics))
    for path in _sources():
        for node in ast.walk(ast.parse(_source(path))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node, clean=False)
                if docstring and docstring.strip():
                    yield _encodable(inspect.cleandoc(docstring))


def readme_texts() -> Iterator[str]:
    """The long descriptions of the installed distributions, by name."""
    readmes = {
        distribution.name: distribution.metadata.json.get("description", "")
        for distribution in importlib.metadata.distributions()
    }
    for _, readme in sorted(readmes.items()):
        if isinstance(readme, str) and readme.strip():
            yield _encodable(readme)


CORPORA: dict[str, Callable[[], Iterator[str]]] = {
    "code": code_texts,
    "reference": reference_texts,
    "readmes": readme_texts,
}


def prepare_demo(output: Path, *, vocab_size: int = 4096) -> list[CorpusMix] | None:
    """Make the demo in ``output``. An interrupted demo is made again, a complete demo is kept.

    Returns the corpora of the file list, or None if the demo was complete.

    Raises:
        ConfigError: ``vocab_size`` is out of range, or differs from that of the complete demo; or
            the folder holds files of the demo's names that it did not make.
    """
    if vocab_size not in VOCAB_SIZES:
        raise ConfigError(
            f"the demo's vocabulary size is {vocab_size}, expected "
            f"{VOCAB_SIZES.start} to {VOCAB_SIZES.stop - 1}"
        )
    file_list, tokenizer = output / "file_list.txt", output / "tokenizer"
    if file_list.exists():
        found = load_tokenizer(tokenizer).vocab_size
        if found != vocab_size:
            raise ConfigError(
                f"{output}: holds a demo with a vocabulary of {found}, expected {vocab_size}. "
                f"Delete the folder, or choose another one."
            )
        return None
    _check_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / _NOTE, _NOTE_TEXT)
    samples: list[str] = []
    for corpus, texts in CORPORA.items():
        documents = list(texts())
        write_jsonl(output / "text" / corpus, documents)
        samples += _sample_lines(documents)
    model = train_tokenizer(samples, vocab_size=vocab_size)
    tokenizer.mkdir(exist_ok=True)
    write_atomically(tokenizer / "tokenizer.model", model)
    # An interrupted demo may have had another vocabulary.
    config = TokenizeConfig(tokenizer=tokenizer, overwrite=True)
    tokenize([output / "text"], output / "tokens", config)
    return mix([output / "tokens"], file_list, MixConfig(epochs=EPOCHS))


def train_tokenizer(lines: Iterable[str], *, vocab_size: int) -> bytes:
    """A lossless SentencePiece model: it preserves white space and every character."""
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


def write_jsonl(folder: Path, documents: list[str]) -> None:
    """Distribute documents over ``NUM_FILES`` files of JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for file_id in range(NUM_FILES):
        lines = [orjson.dumps({"text": text}) for text in documents[file_id::NUM_FILES]]
        write_atomically(folder / f"{file_id}.jsonl", b"\n".join([*lines, b""]))
    num_chars = sum(map(len, documents))
    logger.info("%s: %s documents, %s characters", folder, f"{len(documents):,}", f"{num_chars:,}")


def _sample_lines(documents: list[str]) -> list[str]:
    """The lines at the beginning of documents at even distances."""
    step = max(1, len(documents) // _SAMPLE_DOCUMENTS)
    beginnings = (text[:_SAMPLE_CHARS] for text in documents[::step])
    return [line for text in beginnings for line in text.splitlines() if line]


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


def _sources() -> list[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    return [
        path
        for path in sorted(library.rglob("*.py"))
        if _SKIPPED_FOLDERS.isdisjoint(path.relative_to(library).parts)
    ]


def _source(path: Path) -> str:
    with open_source(path) as file:
        return file.read()


def _encodable(text: str) -> str:
    # An escape in a docstring may stand for half a character, which UTF-8 cannot encode.
    return text.encode(errors="replace").decode()

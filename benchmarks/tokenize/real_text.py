"""Real text from what is installed: sources and documentation, one file a document."""

import hashlib
import random
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path

import orjson

LARGE_REPEATS = 5

SUFFIXES = {".py", ".pyi", ".md", ".rst", ".txt", ".html", ".c", ".h", ".hpp", ".cpp", ".js"}
DOCUMENT_BYTES = range(200, 1_000_000)


@dataclass(frozen=True)
class Text:
    """JSON lines: all in one file, and the same documents in other files."""

    path: Path

    halves: Path
    """Folder of two files of half the size."""

    large: Path
    """All of it, ``LARGE_REPEATS`` times."""

    first: Path
    """The first document alone."""

    num_documents: int
    num_bytes: int
    num_repeats: int
    """How often the machine's text had to be repeated; 1 is not at all."""


def write_text(folder: Path, *, num_bytes: int) -> Text:
    """Write documents of ``num_bytes`` in all, in a random order that is always the same."""
    documents = list(_installed_documents(num_bytes))
    random.Random(1).shuffle(documents)
    available = sum(map(len, documents))
    halves = folder / "halves"
    halves.mkdir(parents=True, exist_ok=True)
    path = folder / "text.jsonl"
    written = num_documents = 0
    with (
        path.open("wb") as whole,
        (halves / "0.jsonl").open("wb") as first,
        (halves / "1.jsonl").open("wb") as second,
    ):
        for document in cycle(documents):
            if written >= num_bytes:
                break
            line = orjson.dumps({"text": document.decode()}) + b"\n"
            whole.write(line)
            (first if written < num_bytes // 2 else second).write(line)
            written += len(document)
            num_documents += 1
    large, beginning = folder / "large.jsonl", folder / "first.jsonl"
    with path.open("rb") as whole, large.open("wb") as repeated:
        beginning.write_bytes(whole.readline())
        for _ in range(LARGE_REPEATS):
            whole.seek(0)
            shutil.copyfileobj(whole, repeated, 1 << 20)
    repeats = -(-written // available)
    return Text(path, halves, large, beginning, num_documents, written, repeats)


def _installed_documents(num_bytes: int) -> Iterator[bytes]:
    """Distinct files of UTF-8 text, until their bytes are twice as many as needed."""
    places = [sysconfig.get_path("stdlib"), *sys.path, "/usr/share", "/usr/lib", "/usr/include"]
    folders = dict.fromkeys(Path(place).resolve() for place in places if place)
    seen: set[bytes] = set()
    found = 0
    for path in chain.from_iterable(sorted(folder.rglob("*")) for folder in folders):
        if path.suffix not in SUFFIXES or not path.is_file():
            continue
        content = path.read_bytes()
        digest = hashlib.sha256(content).digest()
        if len(content) not in DOCUMENT_BYTES or digest in seen or not _is_text(content):
            continue
        seen.add(digest)
        yield content
        found += len(content)
        if found >= 2 * num_bytes:
            return


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\x00" not in content

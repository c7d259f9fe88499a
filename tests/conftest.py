"""Shards and blends small enough to check by hand."""

import gc
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, settings
from tokenizers.models import WordLevel

from blendtitan import BlendConfig
from blendtitan.identity import TokenizerIdentity
from blendtitan.retries import RETRIES
from blendtitan.storage.index_arrays import IndexArrays, encode_index
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.record_files import TokenizerRecord, record_path
from blendtitan.storage.record_writer import encode_record
from blendtitan.storage.writer import ShardWriter
from blendtitan.tokenizers import identity_of, load_tokenizer, proof
from tests.failing_reads import Disk

if TYPE_CHECKING:
    from tests.object_store import ObjectStore

# How long an example takes says nothing about whether it is right. `--hypothesis-profile thorough`
# takes many more of them.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("blendtitan", UNTIMED, max_examples=40)
settings.register_profile("thorough", UNTIMED, max_examples=1000)
settings.load_profile("blendtitan")

EOD = 2

WriteShard = Callable[..., Path]
WriteBlend = Callable[..., BlendConfig]


# Importing all tests makes millions of objects. Looking for garbage among them takes seconds, then
# and whenever a test collects; a process that is forked would copy them to count their references.
gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage again, but only among what tests make."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let everything be released at the end, as without tests."""
    gc.unfreeze()


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores, because tests often wait for others."""
    return 1 + (os.cpu_count() or 1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for tests marked ``long``."""
    parser.addoption("--long", action="store_true", help="run the tests marked long, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="long: runs with ./run_tests.sh --long"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep proofs about tokenizers out of the user's cache, and short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(proof, "SAMPLE_TEXTS", 1000)
        yield


_left: set[threading.Thread] = set()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Note the threads that earlier tests left."""
    _left.clear()
    _left.update(threading.enumerate())


@pytest.fixture(scope="session", autouse=True)
def _forks() -> Iterator[None]:
    """Fork the processes that tokenize, as the command does.

    A process with threads starts new ones instead, which takes a second each. Those that earlier
    tests left only wait, and hold no lock that a forked process needs.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "active_count", lambda: 1 + len({*threading.enumerate()} - _left))
        yield


@pytest.fixture
def write_shard(tmp_path: Path) -> WriteShard:
    """``write_shard("web_0", [[5, 6, 2], [7, 2]])`` writes a shard and returns its prefix."""

    def write(name: str, documents: Iterable[Sequence[int]], dtype: str = "<u2") -> Path:
        prefix = tmp_path / name
        with ShardWriter.create(prefix, dtype=np.dtype(dtype)) as writer:
            for document in documents:
                writer.add_document(np.array(document, np.int64))
        return prefix

    return write


HEADER = b"\xff" * 1024
"""A header of ids that no vocabulary has."""


def add_header(prefix: Path) -> None:
    """Put ``HEADER`` before the tokens of a shard, and move its pointers."""
    arrays = IndexArrays.open(prefix)
    index = encode_index(
        arrays.lens, arrays.documents, dtype=arrays.dtype, header_bytes=len(HEADER)
    )
    bin_path = Path(f"{prefix}.bin")
    bin_path.write_bytes(HEADER + bin_path.read_bytes())
    Path(f"{prefix}.idx").write_bytes(b"".join(index))


@pytest.fixture
def write_blend(tmp_path: Path, write_shard: WriteShard) -> WriteBlend:
    """``write_blend({"web": (0.7, [100, 50])}, seq_length=8)`` returns a configuration.

    The corpus ``web`` has two shards, of 100 and 50 tokens, in documents of 1 to 9 tokens.
    """

    def write(corpora: dict[str, tuple[float, list[int]]], **settings: Any) -> BlendConfig:
        lines = []
        for name, (weight, sizes) in corpora.items():
            for place, size in enumerate(sizes):
                write_shard(f"{name}/{name}_{place}", numbered_documents(name, place, size))
                lines.append(f"{weight / len(sizes)!r} {name}/{name}_{place} {name}")
        path = tmp_path / f"{'_'.join(corpora)}.txt"
        path.write_text("\n".join(lines))
        return BlendConfig(**{"data_file_list": path, "eod_token_id": EOD, "seed": 7} | settings)

    return write


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for what other threads do; long before it takes this long, something is wrong."""
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def free_port() -> str:
    """A port of this machine that nothing listens on."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return str(server.getsockname()[1])


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator["ObjectStore"]:
    """An S3 server with an empty bucket. Pauses between retries are left out."""
    from blendtitan import remote
    from tests.object_store import running

    monkeypatch.setattr(RETRIES, "sleep", lambda seconds: None)
    remote.forget()
    with running() as server:
        yield server
    remote.forget()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """All reads of shards go through it: it gives them faults. Pauses are noted, not waited."""
    return Disk(monkeypatch)


def numbered_documents(name: str, place: int, size: int) -> list[list[int]]:
    """Documents of 1 to 9 tokens, the last of each EOD, whose tokens differ from shard to shard."""
    rng = np.random.default_rng([*name.encode(), place])
    tokens = 3 + np.arange(size) % 5000 + 5000 * (place % 10)
    documents: list[list[int]] = []
    start = 0
    while start < size:
        stop = min(start + int(rng.integers(1, 10)), size)
        documents.append([*tokens[start : stop - 1].tolist(), EOD])
        start = stop
    return documents


def write_record(prefix: Path, tokenizer: TokenizerIdentity) -> None:
    """Record that a tokenizer made a shard."""
    index = ShardIndex.open(prefix)
    record = TokenizerRecord(tokenizer, index.num_documents, index.num_tokens)
    record_path(prefix).write_bytes(encode_record(record))


@pytest.fixture(scope="session")
def word_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose id 5 is the word ``w5``; its EOS is ``EOD``."""
    folder = tmp_path_factory.mktemp("words")
    vocabulary = {f"w{i}": i for i in range(20_000) if i != EOD} | {"</s>": EOD}
    tokenizer = tokenizers.Tokenizer(WordLevel(vocabulary, unk_token="w0"))
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return folder


@pytest.fixture(scope="session")
def word_identity(word_tokenizer: Path) -> TokenizerIdentity:
    """Of ``word_tokenizer``."""
    return identity_of(load_tokenizer(word_tokenizer), EOD)

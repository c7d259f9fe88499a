"""The tokens that are read: random ids, as shards and in the formats of other loaders.

FOLDER/many         small shards in 40 corpora, for the start
FOLDER/one          one corpus in 20 shards of 64 MiB
FOLDER/litdata      the tokens of ``one`` for litdata, in chunks of 64 MiB
FOLDER/mds          the tokens of ``one`` for mosaicml-streaming, in shards of 64 MiB
"""

import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from blendtitan.storage.writer import ShardWriter

EOD = 2
SEQ_LENGTH = 8192
MICRO_BATCH = 8
STEP_BYTES = MICRO_BATCH * SEQ_LENGTH * 2
"""Of the tokens of a step, which are uint16 in all formats."""

EPOCHS = 2
"""What a run reads that is measured to its end, and what staging plans for."""

FILE_TOKENS = 1 << 25
"""64 MiB: the default of mosaicml-streaming, and what litdata's documentation advises."""

PACKAGES = {"litdata": "litdata", "mosaicml-streaming": "streaming"}


def import_streaming() -> ModuleType:
    """mosaicml-streaming, without its images: they need torchvision, which needs a GPU's torch."""
    sys.modules["streaming.vision"] = ModuleType("streaming.vision")
    import streaming

    return streaming


def is_installed(loader: str) -> bool:
    """Whether the package of a loader can be imported."""
    return loader not in PACKAGES or find_spec(PACKAGES[loader]) is not None


def write_tokens(folder: Path, *, num_small: int, num_large: int) -> None:
    """Write what is not there yet."""
    _once(folder / "many", lambda to: _write_many(to, num_small))
    _once(folder / "one", lambda to: _write_one(to, num_large))
    if is_installed("litdata"):
        _once(folder / "litdata", lambda to: _write_litdata(to, folder / "one"))
    if is_installed("mosaicml-streaming"):
        _once(folder / "mds", lambda to: _write_mds(to, folder / "one"))


def num_tokens(folder: Path) -> int:
    """Tokens of ``one``."""
    return sum(path.stat().st_size for path in (folder / "one").glob("*.bin")) // 2


def _once(folder: Path, write: Callable[[Path], None]) -> None:
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
        (folder / "complete").touch()


def _write_many(folder: Path, num_shards: int) -> None:
    generator = np.random.default_rng(0)
    lines = []
    for number in range(num_shards):
        corpus = f"corpus_{number % 40}"
        (folder / corpus).mkdir(exist_ok=True)
        lens = generator.integers(100, 1000, 60)
        _write_shard(folder / corpus / f"shard_{number}", lens, generator)
        lines.append(f"1 {corpus}/shard_{number} {corpus}")
    (folder / "list.txt").write_text("\n".join(lines))


def _write_one(folder: Path, num_shards: int) -> None:
    generator = np.random.default_rng(1)
    for number in range(num_shards):
        ends = np.cumsum(generator.integers(100, 4000, FILE_TOKENS // 1000))
        ends = np.append(ends[ends < FILE_TOKENS], FILE_TOKENS)
        _write_shard(folder / f"shard_{number}", np.diff(ends, prepend=0) - 1, generator)
    (folder / "list.txt").write_text("\n".join(f"1 shard_{n} one" for n in range(num_shards)))


def _write_shard(prefix: Path, lens: NDArray[np.int64], generator: np.random.Generator) -> None:
    """Documents of these lengths, not counting the EOD of each."""
    with ShardWriter.create(prefix, dtype=np.dtype("<u2")) as writer:
        for num_ids in lens:
            writer.add_document(np.append(generator.integers(3, 50_000, num_ids), EOD))


def _shards(folder: Path) -> Iterator[NDArray[np.uint16]]:
    for number in range(len(list(folder.glob("*.bin")))):
        yield np.fromfile(folder / f"shard_{number}.bin", np.uint16)


def _write_litdata(folder: Path, source: Path) -> None:
    from litdata.streaming import TokensLoader
    from litdata.streaming.cache import Cache

    cache = Cache(str(folder), chunk_size=FILE_TOKENS, item_loader=TokensLoader())
    for number, tokens in enumerate(_shards(source)):
        cache[number] = tokens
    cache.done()
    cache.merge()
    index = json.loads((folder / "index.json").read_text())
    sizes = {chunk["chunk_bytes"] // FILE_TOKENS for chunk in index["chunks"]}
    if sizes != {2}:
        raise RuntimeError(f"{folder}: found chunks of {sizes} times 32 MiB, expected 2")


def _write_mds(folder: Path, source: Path) -> None:
    columns = {"tokens": f"ndarray:uint16:{SEQ_LENGTH + 1}"}
    with import_streaming().MDSWriter(out=str(folder), columns=columns, exist_ok=True) as writer:
        for tokens in _shards(source):
            for start in range(0, len(tokens) - SEQ_LENGTH, SEQ_LENGTH):
                writer.write({"tokens": tokens[start : start + SEQ_LENGTH + 1]})

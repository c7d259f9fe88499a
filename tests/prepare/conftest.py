import json
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from blendtitan.prepare.demo import train_tokenizer
from blendtitan.prepare.documents import Settings
from blendtitan.prepare.plan import plan_jobs, plan_shards
from blendtitan.prepare.streams import BadText, Text
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.prepare.workers import Rank, Work
from blendtitan.storage.reader import ShardIndex
from blendtitan.tokenizers import Encoder, identity_of, load_tokenizer

WriteJsonl = Callable[[str, Iterable[str]], Path]


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SentencePiece model. Its BOS is 1, its EOS 2."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    lines = Path(json.__file__).read_text(encoding="utf-8").splitlines()
    path.write_bytes(train_tokenizer(lines, vocab_size=600))
    return path


@pytest.fixture
def write_jsonl(tmp_path: Path) -> WriteJsonl:
    """Write texts as JSON lines to a file below ``tmp_path``."""
    return lambda name, texts: write_texts(tmp_path / name, texts)


def write_texts(path: Path, texts: Iterable[str]) -> Path:
    """Write texts as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def shard_files(folder: Path) -> dict[str, bytes]:
    """Content of every file of the shards below a folder, by path."""
    suffixes = ("bin", "idx", "docs.parquet")
    files = [path for suffix in suffixes for path in folder.rglob(f"*.{suffix}")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def undisturbed(text: Path, tokenizer_path: Path, output: Path) -> dict[str, bytes]:
    """The shards that a command makes if nothing disturbs it."""
    tokenize([text], output, TokenizeConfig(tokenizer=tokenizer_path))
    return shard_files(output)


def documents(prefix: Path) -> list[list[int]]:
    index = ShardIndex.open(prefix)
    starts = index.document_starts(0, index.num_documents)
    return [part.tolist() for part in np.split(np.fromfile(f"{prefix}.bin", "<u2"), starts[1:-1])]


def expected(tokenizer_path: Path, texts: Iterable[str]) -> list[list[int]]:
    tokenizer = load_tokenizer(tokenizer_path)
    return [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts]


def planned_work(
    inputs: Sequence[Path], output: Path, encoder: Path | Encoder, *, job_bytes: int = 10**6
) -> Work:
    """A plan that is ready to run."""
    encoder = encoder if isinstance(encoder, Encoder) else Encoder(load_tokenizer(encoder))
    shards = plan_shards(inputs, output, keys=["text"])
    for shard in shards:
        shard.parts_folder.mkdir(parents=True)
    tokenizer = load_tokenizer(encoder.path)
    return Work(
        plan={shard: plan_jobs(shard, job_bytes) for shard in shards},
        encoder=encoder,
        settings=Settings.of(tokenizer),
        tokenizer=identity_of(tokenizer, tokenizer.eos_id),
        max_rejects=0,
        rank=Rank(),
        tier=encoder.tier,
        doubt_path=output / "doubt",
    )


def strings(texts: Iterable[Text | BadText]) -> list[str | BadText]:
    """Texts of a reader, without their places and fields."""
    return [text if isinstance(text, BadText) else text[1] for text in texts]


class KillingEncoder(Encoder):
    """Kills its process, as the kernel does when memory runs out."""

    def encode(self, texts: list[str]) -> NoReturn:
        """Does not return."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def __reduce__(self) -> tuple[object, tuple[Any, ...]]:
        return type(self), (load_tokenizer(self.path),)

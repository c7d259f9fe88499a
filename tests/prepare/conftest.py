import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from blendtitan.prepare.demo import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SentencePiece model. Its BOS is 1, its EOS 2."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    lines = Path(json.__file__).read_text(encoding="utf-8").splitlines()
    path.write_bytes(train_tokenizer(lines, vocab_size=600))
    return path


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[[str, Iterable[str]], Path]:
    """Write texts as JSON lines to a file below ``tmp_path``."""

    def write(name: str, texts: Iterable[str]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return path

    return write

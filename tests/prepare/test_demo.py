import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blendtitan.errors import ConfigError
from blendtitan.prepare import demo
from blendtitan.storage.file_list import read_file_list
from blendtitan.tokenizers import load_tokenizer


@pytest.fixture
def small_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_texts(texts: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
        return lambda: (text[:5000] for text, _ in zip(texts(), range(40), strict=False))

    for corpus, texts in demo.CORPORA.items():
        monkeypatch.setitem(demo.CORPORA, corpus, first_texts(texts))


def is_record(path: Path) -> bool:
    return ".blendtitan" in path.parts or path.name.endswith(".ends.json")


def contents(folder: Path) -> dict[Path, bytes]:
    """All files but the records of the shards, which hold times of change."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if not is_record(path)}


@pytest.mark.usefixtures("small_corpora")
def test_the_demo_is_made_once(tmp_path: Path) -> None:
    made = demo.prepare_demo(tmp_path, vocab_size=1024)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    assert made is not None
    assert [row.corpus for row in made] == ["code", "readmes", "reference"]
    assert len(read_file_list(tmp_path / "file_list.txt")) == 3 * demo.NUM_FILES
    assert load_tokenizer(tmp_path / "tokenizer").vocab_size == 1024
    assert demo.prepare_demo(tmp_path, vocab_size=1024) is None
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written


@pytest.mark.usefixtures("small_corpora")
def test_an_interrupted_demo_is_completed(tmp_path: Path) -> None:
    demo.prepare_demo(tmp_path, vocab_size=1024)
    complete = contents(tmp_path)
    for name in ("file_list.txt", "tokens/code/0.idx", "tokenizer/tokenizer.model"):
        (tmp_path / name).unlink()

    demo.prepare_demo(tmp_path, vocab_size=1024)

    assert contents(tmp_path) == complete


@pytest.mark.parametrize("name", ["text/code/0.jsonl", "tokenizer/tokenizer.model", "demo.txt"])
def test_files_that_the_demo_did_not_make_are_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")

    with pytest.raises(ConfigError, match="exists already, and was not made by `blendtitan demo`"):
        demo.prepare_demo(tmp_path, vocab_size=1024)
    assert contents(tmp_path) == {path: b"mine"}


@pytest.mark.usefixtures("small_corpora")
def test_a_complete_demo_with_another_vocabulary_is_an_error(tmp_path: Path) -> None:
    """Made anew, it would change under a run that is being resumed."""
    demo.prepare_demo(tmp_path, vocab_size=1024)

    with pytest.raises(ConfigError, match="holds a demo with a vocabulary of 1024"):
        demo.prepare_demo(tmp_path, vocab_size=2048)


def test_a_vocabulary_out_of_range_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected 1024 to 16384"):
        demo.prepare_demo(tmp_path, vocab_size=100)


def test_documents_are_distributed_over_the_files(tmp_path: Path) -> None:
    demo.write_jsonl(tmp_path, [str(number) for number in range(6)])

    files = [path.read_text().splitlines() for path in sorted(tmp_path.iterdir())]

    assert [[json.loads(line)["text"] for line in lines] for lines in files] == [
        ["0", "4"],
        ["1", "5"],
        ["2"],
        ["3"],
    ]

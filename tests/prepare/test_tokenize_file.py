from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from blendtitan.prepare.plan import Job
from blendtitan.prepare.tokenize_file import SHOWN_REJECTS, TokenizedFile, tokenize_file
from blendtitan.storage.reader import ShardIndex
from blendtitan.tokenizers import Tokenizer, load_tokenizer

WriteJsonl = Callable[[str, Iterable[str]], Path]


@pytest.fixture
def tokenizer(tokenizer_path: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_path)


def tokenized(path: Path, tokenizer: Tokenizer, *, max_rejects: int = 0) -> TokenizedFile:
    return tokenize_file(Job(path, path.parent / "out"), tokenizer, max_rejects=max_rejects)


def test_documents_end_in_an_eod_that_is_counted(
    write_jsonl: WriteJsonl, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Where the index does not count the EOD, every document boundary after the first is off."""
    texts = ["one", "and the second </s>", "3"]
    result = tokenized(write_jsonl("a.jsonl", texts), tokenizer)
    documents = [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts]

    starts = ShardIndex.open(tmp_path / "out").document_starts(0, 3)
    tokens = np.fromfile(tmp_path / "out.bin", dtype="<u2")

    assert [part.tolist() for part in np.split(tokens, starts[1:-1])] == documents
    assert starts.tolist() == np.cumsum([0, *map(len, documents)]).tolist()
    assert (result.num_documents, result.num_tokens) == (3, len(tokens))


def test_a_text_without_tokens_is_a_document_of_one_eod(
    write_jsonl: WriteJsonl, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tokenizers drop white space; the document still counts, so numbers agree."""
    nothing = np.array([], dtype=np.int32), np.zeros(2, dtype=np.int32)
    monkeypatch.setattr(tokenizer, "encode_batch", lambda texts: nothing)

    result = tokenized(write_jsonl("a.jsonl", [" ", "\n"]), tokenizer)

    assert (result.num_documents, result.num_tokens) == (2, 2)


def test_bad_lines_within_the_allowance_leave_their_neighbours(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\nbad\n{"text": "b"}\n')

    result = tokenized(tmp_path / "a.jsonl", tokenizer, max_rejects=1)

    assert (result.num_documents, result.rejects.count) == (2, 1)
    assert (tmp_path / "out.idx").exists()


def test_too_many_bad_lines_leave_nothing_and_are_all_counted(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """One run tells how bad a file is; the report stays short."""
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' + "bad\n" * 100)

    result = tokenized(tmp_path / "a.jsonl", tokenizer, max_rejects=1)

    assert (result.num_documents, result.rejects.count) == (0, 100)
    assert [line.line_number for line in result.rejects.first] == list(range(2, SHOWN_REJECTS + 2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_file_without_documents_leaves_nothing(
    write_jsonl: WriteJsonl, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    result = tokenized(write_jsonl("a.jsonl", []), tokenizer)

    assert result.num_documents == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]

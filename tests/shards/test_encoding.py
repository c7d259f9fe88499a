"""``verify --tokenizer`` finds documents that have other ids than their text."""

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from blendtitan.cli import main
from blendtitan.prepare.demo import train_tokenizer
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.shards.encoding import Encoding, compare_encoding
from blendtitan.storage.reader import ShardIndex
from blendtitan.tokenizers import Tokenizer, load_tokenizer
from tests.conftest import WriteShard

LINES = Path(json.__file__).read_text(encoding="utf-8").splitlines()
TEXTS = [line for line in LINES if line.strip()]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train_tokenizer(LINES, vocab_size=600))
    return load_tokenizer(path)


def documents(tokenizer: Tokenizer) -> list[list[int]]:
    return [[*tokenizer.encode(text), tokenizer.eos_id] for text in TEXTS]


def test_documents_of_the_tokenizer_come_back(
    write_shard: WriteShard, tokenizer: Tokenizer
) -> None:
    index = ShardIndex.open(write_shard("a", documents(tokenizer)))

    found = compare_encoding(index, Encoding(tokenizer, tokenizer.eos_id, 10**6))

    assert (found.documents, found.differing, found.unjudged) == (len(TEXTS), [], 0)


def test_a_document_with_other_ids_than_its_text_is_a_fault(
    write_shard: WriteShard, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    """One word is spelled in single characters: the text is the same, and the ids are wrong."""
    wrong = documents(tokenizer)
    spelled = [token for char in TEXTS[7] for token in tokenizer.encode(char)]
    wrong[7] = [*spelled, tokenizer.eos_id]
    prefix = write_shard("a", wrong)

    assert main(["verify", str(prefix), "--tokenizer", str(tokenizer.path)]) == 1
    output = capsys.readouterr()
    assert f"1 of the {len(TEXTS)} documents that were compared have other ids" in output.err
    assert "The first is document 7: from token" in output.err


def test_a_document_whose_text_cannot_be_recovered_is_counted_and_no_fault(
    write_shard: WriteShard, tokenizer: Tokenizer
) -> None:
    """Half a character has no text, and neither has a control symbol inside a document."""
    half = [*tokenizer.encode("\u6f22")[:-1], tokenizer.eos_id]
    inside = [*tokenizer.encode("a"), tokenizer.bos_id, *tokenizer.encode("b"), tokenizer.eos_id]
    index = ShardIndex.open(write_shard("a", [half, inside, *documents(tokenizer)[:3]]))

    found = compare_encoding(index, Encoding(tokenizer, tokenizer.eos_id, 10**6))

    assert (found.documents, found.differing, found.unjudged) == (5, [], 2)


def test_documents_to_compare_are_spread_over_the_shard(
    write_shard: WriteShard, tokenizer: Tokenizer
) -> None:
    index = ShardIndex.open(write_shard("a", documents(tokenizer)))

    assert compare_encoding(index, Encoding(tokenizer, tokenizer.eos_id, 5)).documents == 5
    assert compare_encoding(index, Encoding(tokenizer, tokenizer.eos_id, 0)).documents == 0


def test_a_shard_that_the_fast_tier_made_without_a_proof_is_a_fault(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its wrong ids can be the right ones of another text: a space more behind a symbol."""
    source, output = tmp_path / "a.jsonl", tmp_path / "out"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    tokenize([source], output, TokenizeConfig(tokenizer=tokenizer.path, tier="reference"))
    verify = ["verify", str(output), "--tokenizer", str(tokenizer.path)]
    assert main(verify) == 0

    record = output / ".blendtitan/a.jsonl"
    record.write_bytes(record.read_bytes().replace(b'"tier":"reference"', b'"tier":"fast"'))
    assert main(verify) == 1
    assert "encoded it before its ids were proven" in capsys.readouterr().err

    tokenize([source], output, TokenizeConfig(tokenizer=tokenizer.path))
    assert main(verify) == 0
    assert np.fromfile(output / "a.bin", "<u2").tolist() == [*chain(*documents(tokenizer))]

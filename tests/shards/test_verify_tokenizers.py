"""The tokenizers that made the shards of a folder or list, compared with the named one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from blendtitan.cli import main
from blendtitan.identity import TokenizerIdentity
from blendtitan.storage.record_files import TokenizerRecord, record_path
from blendtitan.storage.record_writer import encode_record
from tests.conftest import EOD, WriteShard, write_record

DOCUMENTS = [[5, 6, EOD], [7, EOD]]


def other(tokenizer: TokenizerIdentity) -> TokenizerIdentity:
    return replace(tokenizer, hash="1:0123", name="other/tokenizer.json")


def verified(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """The exit status and the whole output."""
    status = main(["verify", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


@pytest.fixture
def mixed(write_shard: WriteShard, word_identity: TokenizerIdentity, tmp_path: Path) -> Path:
    """Three shards, one of them made with another tokenizer."""
    for name in ("a", "b", "c"):
        prefix = write_shard(f"tokens/web/{name}", DOCUMENTS)
        write_record(prefix, other(word_identity) if name == "b" else word_identity)
    return tmp_path / "tokens"


def test_shards_of_different_tokenizers_in_one_folder_are_reported(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The minority shard is named, with both tokenizers."""
    status, printed = verified(capsys, mixed)

    assert status == 1
    assert "web/b: made with huggingface 'other/tokenizer.json'" in printed
    assert "while" in printed
    assert "1 of 3 shards are bad" in printed


def test_shards_of_different_tokenizers_in_one_list_are_reported(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text("1 tokens/web/a one\n1 tokens/web/b two\n")

    assert verified(capsys, tmp_path / "list.txt")[0] == 1


def test_two_folders_may_be_of_two_tokenizers(
    write_shard: WriteShard,
    word_identity: TokenizerIdentity,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They need not be read together."""
    write_record(write_shard("one/a", DOCUMENTS), word_identity)
    write_record(write_shard("two/a", DOCUMENTS), other(word_identity))

    assert verified(capsys, tmp_path / "one", tmp_path / "two")[0] == 0


def test_records_are_compared_with_the_named_tokenizer(
    mixed: Path, word_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed = verified(capsys, mixed / "web/b", "--tokenizer", word_tokenizer)

    assert status == 1
    assert "web/b: made with huggingface 'other/tokenizer.json'" in printed
    assert f"from {word_tokenizer}" in printed
    assert verified(capsys, mixed / "web/a", "--tokenizer", word_tokenizer)[0] == 0


@pytest.fixture
def bare_tokenizer(word_tokenizer: Path, tmp_path: Path) -> Path:
    """The file alone, which names no EOS."""
    return Path(shutil.copy(word_tokenizer / "tokenizer.json", tmp_path / "tokenizer.json"))


def test_the_eod_of_a_record_is_used_if_the_tokenizer_names_none(
    write_shard: WriteShard,
    word_identity: TokenizerIdentity,
    bare_tokenizer: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prefix = write_shard("tokens/a", [[5, EOD], [7, EOD]])
    write_record(prefix, word_identity)
    status, printed = verified(capsys, prefix, "--tokenizer", bare_tokenizer)

    assert status == 0
    assert "2 documents encoded again: 0 with different ids" in printed
    assert "0 whose text cannot be recovered exactly" in printed
    assert f"EOD is token {EOD} by the records" in printed


def test_a_shard_without_comparable_documents_is_reported(
    write_shard: WriteShard, bare_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_shard("tokens/a", DOCUMENTS)
    status, printed = verified(capsys, prefix, "--tokenizer", bare_tokenizer)

    assert status == 0
    assert "shards that could not be compared with the tokenizer: 1." in printed
    assert "no EOD is known (shards: 1)" in printed


def test_the_tokenizer_of_a_small_shard_without_a_record_is_undetermined(
    write_shard: WriteShard, word_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five tokens are too few for a verdict, which is not a fault of the shard."""
    prefix = write_shard("tokens/a", DOCUMENTS)
    status, printed = verified(capsys, prefix, "--tokenizer", word_tokenizer)

    assert status == 0
    assert "tokens/a: cannot determine whether this tokenizer made it" in printed


def test_a_record_of_another_shard_is_reported(
    write_shard: WriteShard, word_identity: TokenizerIdentity, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another program replaced our shard, but not our record."""
    prefix = write_shard("tokens/a", DOCUMENTS)
    record = TokenizerRecord(word_identity, documents=2, tokens=6)
    record_path(prefix).write_bytes(encode_record(record))
    status, printed = verified(capsys, prefix)

    assert status == 1
    assert "a.tokenizer.json: describes a shard of 2 documents and 6 tokens" in printed


def test_a_damaged_record_is_reported(
    write_shard: WriteShard, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_shard("tokens/a", DOCUMENTS)
    record_path(prefix).write_text("[]")
    status, printed = verified(capsys, prefix)

    assert status == 1
    assert "a.tokenizer.json: expected the record of the tokenizer" in printed


def test_the_json_report_names_the_tokenizer_of_each_shard(
    mixed: Path, word_identity: TokenizerIdentity, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["verify", str(mixed / "web/a"), "--json"])
    (shard,) = json.loads(capsys.readouterr().out)["shards"]

    assert shard["tokenizer"]["hash"] == word_identity.hash
    assert shard["tokenizer"]["eod_id"] == EOD

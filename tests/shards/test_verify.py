import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from xxhash import xxh3_128

from blendtitan.cli import main
from blendtitan.errors import CorruptShardError
from blendtitan.prepare.demo import train_tokenizer
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.shards import tokens as tokens_module
from blendtitan.shards.report import verify_notes
from blendtitan.shards.verify import Expected, VerifiedShard, verify
from blendtitan.storage.record_writer import write_folder_catalog
from blendtitan.storage.records import CatalogEntry
from blendtitan.storage.writer import ShardWriter, encode_index
from tests.conftest import EOD, WriteShard
from tests.shards.conftest import WriteUncounted

DOCUMENTS = [[5, 6, EOD], [7, EOD], [8, 9, 10, EOD]]

# Of a shard of three documents: where its arrays begin in the .idx.
LENS_AT, POINTERS_AT, DOCUMENTS_AT = 34, 46, 70


def checked(prefix: Path, vocab_size: int | None = 11, eod_id: int | None = EOD) -> VerifiedShard:
    (shard,) = verify([prefix], Expected(vocab_size=vocab_size, eod_id=eod_id))
    return shard


def overwrite(path: Path, at: int, value: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(value)


def test_a_sound_shard_has_no_problem_and_its_counts_are_shown(write_shard: WriteShard) -> None:
    shard = checked(write_shard("web", DOCUMENTS))

    assert shard.problems == []
    assert shard.tokens is not None
    assert (shard.tokens.num_eod, shard.tokens.num_documents) == (3, 3)
    assert (shard.tokens.min_id, shard.tokens.max_id) == (2, 10)


def test_a_shard_without_any_eod_is_sound(write_shard: WriteShard) -> None:
    """EOD is then inserted while reading."""
    shard = checked(write_shard("web", [[5, 6], [7]]))

    assert shard.problems == []
    assert shard.tokens is not None
    assert shard.tokens.num_eod == 0


def test_documents_of_several_sequences_or_none_are_sound(tmp_path: Path) -> None:
    index = encode_index(
        np.array([2, 1, 0, 4], np.int32), np.array([0, 2, 4, 4]), dtype=np.dtype("<u2")
    )
    (tmp_path / "web.idx").write_bytes(b"".join(index))
    (tmp_path / "web.bin").write_bytes(struct.pack("<7H", 5, 6, EOD, 7, 8, 9, EOD))

    shard = checked(tmp_path / "web", eod_id=None)

    assert shard.problems == []
    assert shard.tokens is not None
    assert shard.tokens.num_documents == 3


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (LENS_AT, struct.pack("<ii", 2, 3), "sequence 1 starts at byte 6, expected 4, where"),
        (LENS_AT + 4, struct.pack("<i", -2), "sequence 1 has -2 tokens, expected 0 or more"),
        (POINTERS_AT + 8, struct.pack("<q", 4), "sequence 1 starts at byte 4, expected 6"),
        (
            DOCUMENTS_AT + 8,
            struct.pack("<qq", 2, 1),
            "document 2 starts at sequence 1, expected 2 to 3",
        ),
        (
            DOCUMENTS_AT + 8,
            struct.pack("<q", 9),
            "document 1 starts at sequence 9, expected 0 to 3",
        ),
    ],
    ids=["lengths", "negative", "pointer", "document index", "outside"],
)
def test_every_entry_of_the_idx_is_compared(
    write_shard: WriteShard, at: int, value: bytes, message: str
) -> None:
    """Damage that opening the shard does not detect."""
    prefix = write_shard("web", DOCUMENTS)
    overwrite(Path(f"{prefix}.idx"), at, value)

    (problem,) = checked(prefix).problems
    assert f"{prefix}.idx: {message}" in problem


@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
def test_a_token_outside_the_vocabulary_is_named_with_its_document(
    write_shard: WriteShard, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "_BLOCK_TOKENS", block)
    prefix = write_shard("web", DOCUMENTS)

    (problem,) = checked(prefix, vocab_size=9).problems

    assert "document 2 holds the token id 9, expected ids from 0 to 8" in problem
    assert checked(prefix, vocab_size=None).problems == []


def test_a_negative_token_is_outside_of_any_vocabulary(write_shard: WriteShard) -> None:
    (problem,) = checked(write_shard("web", [[5], [-1]], "<i4"), None, None).problems

    assert "document 1 holds the token id -1, expected ids from 0." in problem


@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
def test_a_mixture_of_documents_with_and_without_eod_is_counted(
    write_shard: WriteShard, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document without tokens has no end; EODs inside documents do not count."""
    monkeypatch.setattr(tokens_module, "_BLOCK_TOKENS", block)

    (problem,) = checked(write_shard("web", [[5, EOD], [EOD, 6], [7, 8, EOD]])).problems
    (empty,) = checked(write_shard("code", [[5, EOD], [], [6, 7], [EOD]])).problems

    assert "2 of 3 documents end in EOD (2)" in problem
    assert "the first that does not is document 1." in problem
    assert "2 of 3 documents end in EOD (2) (and 1 empty ones)" in empty
    assert "the first that does not is document 2." in empty


@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
def test_empty_documents_are_sound_and_counted(
    write_shard: WriteShard, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Megatron-LM writes an empty text as a document without EOD."""
    monkeypatch.setattr(tokens_module, "_BLOCK_TOKENS", block)
    shard = checked(write_shard("web", [[], [5, EOD], [], [], [5, 7, EOD], []]))

    assert shard.problems == []
    assert shard.tokens is not None
    assert (shard.tokens.num_eod, shard.tokens.num_empty) == (2, 4)
    assert "empty documents: 4, in shards: 1." in next(iter(verify_notes([shard])))


@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
def test_the_first_token_of_documents_is_reported(
    write_shard: WriteShard, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "_BLOCK_TOKENS", block)
    with_bos = checked(write_shard("bos", [[1, 5, EOD], [], [1, 6, EOD], [1, 7], [8, EOD]]))
    one_token = checked(write_shard("one", [[EOD, 5], [EOD, 6, 7]]))

    (_, note) = verify_notes([with_bos])
    where = f"(shards: 1, the first is {with_bos.prefix})."
    assert note.startswith(
        f"3 of 4 documents begin with token 1, 3 end in EOD {where} This needs no"
    )
    (note,) = verify_notes([one_token])
    assert note.startswith("2 of 2 documents begin with token 2, 0 end in EOD (shards: 1, ")
    assert "). BOS and" in note


def test_a_multimodal_shard_and_one_of_the_older_format_are_named(write_shard: WriteShard) -> None:
    prefix = write_shard("web", DOCUMENTS)
    idx = Path(f"{prefix}.idx")
    sound = idx.read_bytes()
    idx.write_bytes(sound + bytes(3))
    (modes,) = checked(prefix).problems
    idx.write_bytes(b"TNTIDX\0\0" + bytes(60))
    (older,) = checked(prefix).problems

    assert "one more byte for each of its 3 sequences: the modes of Megatron's multimodal" in modes
    assert "this is a TNTIDX file" in older
    assert all(f"blendtitan convert {prefix} --output DIR" in text for text in (modes, older))


def test_uncounted_eods_are_recognised_and_their_repair_is_named(
    write_uncounted: WriteUncounted,
) -> None:
    prefix = write_uncounted("web", DOCUMENTS)

    (problem,) = checked(prefix).problems

    assert f"blendtitan repair {prefix} --eod-id" in problem


def cut_bin(prefix: Path) -> None:
    Path(f"{prefix}.bin").write_bytes(b"\x05\x00")


def remove_bin(prefix: Path) -> None:
    Path(f"{prefix}.bin").unlink()


def remove_idx(prefix: Path) -> None:
    Path(f"{prefix}.idx").unlink()


@pytest.mark.parametrize("damage", [cut_bin, remove_bin, remove_idx])
def test_the_command_reports_all_shards_and_fails_if_one_is_bad(
    damage: Callable[[Path], None], write_shard: WriteShard, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = write_shard("tokens/web/a", DOCUMENTS), write_shard("tokens/web/b", DOCUMENTS)
    options = [str(bad.parents[1]), "--vocab-size", "11", "--eod-id", "2"]
    assert main(["verify", *options]) == 0
    damage(bad)
    capsys.readouterr()

    assert main(["verify", *options]) == 1
    shown = capsys.readouterr()
    rows = [line.split() for line in shown.out.splitlines()]
    assert [str(bad), "none", "1", "wrong"] in rows
    assert [str(good), "3", "3", "9", "10", "none", "good"] in rows
    assert shown.err.startswith(f"blendtitan verify: {bad}.")
    assert shown.err.endswith("1 of 2 shards are bad\n")


def test_json_has_the_findings(write_shard: WriteShard, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = write_shard("web", DOCUMENTS)

    assert main(["verify", str(prefix), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "shards": [
            {
                "prefix": str(prefix),
                "corpus": "web",
                "documents": 3,
                "tokens": 9,
                "smallest_id": 2,
                "largest_id": 10,
                "empty_documents": 0,
                "first_token": 5,
                "documents_with_first_token": 1,
                "documents_with_eod": None,
                "documents_of_eod_only": None,
                "documents_with_unknown": None,
                "documents_compared": None,
                "documents_differing": None,
                "documents_unjudged": None,
                "has_checksums": False,
                "document_ends_recorded": False,
                "sources_recorded": False,
                "kept_fields": [],
                "tokenizer": None,
                "notes": [],
                "problems": [],
            }
        ]
    }


def test_the_report_counts_shards_with_a_record_of_document_ends(
    write_shard: WriteShard, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = [str(write_shard(name, DOCUMENTS)) for name in ("a", "b")]
    command = ["verify", *shards, "--eod-id", str(EOD)]
    main(command)
    recorded = capsys.readouterr().out
    main([*command, "--no-record"])

    assert "document ends recorded: 2 of 2 shards have PREFIX.ends.json." in recorded
    assert "document ends recorded" not in capsys.readouterr().out


def test_a_failed_check_keeps_the_record_of_another_eod(write_shard: WriteShard) -> None:
    """An EOD that ends no document does not replace one that ends some."""
    prefix = write_shard("web", [[5, 6, EOD], [9, 9], [7, EOD]])
    ends = Path(f"{prefix}.ends.json")
    main(["verify", str(prefix), "--eod-id", str(EOD)])
    recorded = ends.read_bytes()

    assert f'"eod_id": {EOD}' in recorded.decode()
    assert main(["verify", str(prefix), "--eod-id", "9"]) == 1
    assert main(["verify", str(prefix), "--eod-id", "3"]) == 0
    assert ends.read_bytes() == recorded


def test_a_successful_check_replaces_the_record_of_another_eod(write_shard: WriteShard) -> None:
    prefix = write_shard("web", [[5, 6, EOD], [9, EOD]])
    ends = Path(f"{prefix}.ends.json")
    main(["verify", str(prefix), "--eod-id", "9"])
    main(["verify", str(prefix), "--eod-id", str(EOD)])

    assert f'"eod_id": {EOD}, ' in ends.read_text()


def test_eod_is_taken_from_recorded_ends_and_its_absence_is_reported(
    write_shard: WriteShard, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_shard("web", DOCUMENTS)
    assert main(["verify", str(prefix)]) == 0
    assert "no EOD is known (shards: 1): how their documents end" in capsys.readouterr().out
    main(["verify", str(prefix), "--eod-id", str(EOD)])
    assert "no EOD is known" not in capsys.readouterr().out
    assert main(["verify", str(prefix)]) == 0
    printed = capsys.readouterr().out

    assert f"EOD is token {EOD} by the records beside the shards (shards: 1)" in printed
    assert "no EOD is known" not in printed


def test_messages_use_the_singular_for_one(
    write_shard: WriteShard, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shard("good", [[EOD]])
    prefix = write_shard("web", [[EOD]])
    Path(f"{prefix}.bin").write_bytes(b"")
    main(["verify", str(prefix.with_name("good")), "--eod-id", str(EOD)])

    assert "1 of 1 document consists of EOD only" in capsys.readouterr().out
    for command, said in (("verify", "is bad"), ("stats", "cannot be read")):
        assert main([command, str(prefix)]) == 1
        assert f"1 of 1 shard {said}" in capsys.readouterr().err
    assert main(["repair", str(prefix), "--eod-id", "2"]) == 1
    assert "1 of 1 shard was not changed" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--vocab-size", "--threads"])
def test_a_setting_out_of_range_is_an_error(
    option: str, write_shard: WriteShard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(write_shard("web", DOCUMENTS)), option, "0"]) == 1
    assert "expected a whole number of at least 1" in capsys.readouterr().err


# --- checksums --------------------------------------------------------------------------------


@pytest.fixture
def cataloged(tmp_path: Path, write_shard: WriteShard) -> Path:
    """A folder with a catalog of two shards, whose .bin files have several parts."""
    entries: dict[str, CatalogEntry] = {}
    for name in ("code/a", "web/b"):
        prefix = write_shard(f"tokens/{name}", DOCUMENTS)
        content = Path(f"{prefix}.bin").read_bytes()
        parts = content[:4], content[4:]
        entries[name] = CatalogEntry(
            documents=3,
            tokens=9,
            dtype="uint16",
            idx_digest=xxh3_128(Path(f"{prefix}.idx").read_bytes()).hexdigest(),
            bin_digests=tuple((len(part), xxh3_128(part).hexdigest()) for part in parts),
        )
    write_folder_catalog(tmp_path / "tokens", entries)
    return tmp_path / "tokens"


def problems(folder: Path) -> list[str]:
    shards = verify([folder], Expected(eod_id=EOD))
    return [problem for shard in shards for problem in shard.problems]


def test_shards_match_their_catalog(cataloged: Path) -> None:
    shards = verify([cataloged], Expected())

    assert [shard.problems for shard in shards] == [[], []]
    assert all(shard.entry is not None for shard in shards)


@pytest.mark.parametrize("block", [1, 2, 1 << 19])
def test_a_changed_token_is_found_by_its_checksum(
    cataloged: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """The token is valid, so only the checksum shows it. The damaged part is named."""
    monkeypatch.setattr(tokens_module, "_BLOCK_TOKENS", block)
    overwrite(cataloged / "web/b.bin", 6, struct.pack("<H", 9))

    (problem,) = problems(cataloged)
    assert "web/b.bin, bytes 4 to 17: the checksum is" in problem
    assert "copy both files of the shard again" in problem


def test_a_replaced_shard_is_found(cataloged: Path) -> None:
    """Both files are from one and the same shard, as when copies were mixed up."""
    for suffix in (".bin", ".idx"):
        (cataloged / f"web/b{suffix}").unlink()
    with ShardWriter.create(cataloged / "web/b", dtype=np.dtype("<u2")) as writer:
        writer.add_document(np.array([7, 8, EOD]))

    (problem,) = problems(cataloged)
    assert "web/b.idx: the checksum is" in problem


def test_a_listed_shard_that_is_missing_is_reported(cataloged: Path) -> None:
    for suffix in (".bin", ".idx"):
        (cataloged / f"web/b{suffix}").unlink()

    (problem,) = problems(cataloged)
    (above,) = problems(cataloged.parent)
    assert "web/b.idx: cannot be opened" in problem
    assert problem.endswith("shards.catalog lists this shard.")
    assert problem == above


def test_the_catalog_is_found_from_a_prefix_below_its_folder(cataloged: Path) -> None:
    overwrite(cataloged / "code/a.bin", 0, struct.pack("<H", 9))

    assert "bytes 0 to 3" in problems(cataloged / "code/a")[0]
    assert problems(cataloged / "web") == []


def test_an_unlisted_shard_has_no_checksums(cataloged: Path, write_shard: WriteShard) -> None:
    write_shard("tokens/web/new", DOCUMENTS)

    assert problems(cataloged) == []
    listed = [shard.entry is not None for shard in verify([cataloged], Expected())]
    assert listed == [True, True, False]


INFINITE = (
    b'{"format": 1, "checksum": "xxh3_128", "shards": {"a": {"documents": Infinity, "tokens": 1, '
    b'"dtype": "uint16", "idx_digest": "ab", "bin_digests": []}}}'
)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"format": 9, "checksum": "md5", "shards": {}}', INFINITE]
)
def test_a_catalog_that_cannot_be_understood_is_an_error(cataloged: Path, content: bytes) -> None:
    (cataloged / "shards.catalog").write_bytes(content)

    with pytest.raises(CorruptShardError, match=r"shards\.catalog: not a catalog of format 1"):
        problems(cataloged)


CATALOG_OF = b'{"format": 1, "checksum": "xxh3_128", "shards": %s}'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b"{}", "missing required field `format`"),
        (CATALOG_OF % b"[1]", "Expected `object`, got `array` - at `$.shards`"),
        (CATALOG_OF % b'{"a": null}', "Expected `object`, got `null` - at `$.shards[...]`"),
        (CATALOG_OF % b'{"a": {"tokens": 1}}', "missing required field `documents`"),
        (b'{"format": 9, "checksum": "md5", "shards": {}}', "Invalid enum value 9"),
        (INFINITE, "JSON is malformed: invalid character"),
    ],
)
def test_errors_of_a_catalog_are_described_in_words(
    cataloged: Path, content: bytes, reason: str
) -> None:
    (cataloged / "shards.catalog").write_bytes(content)

    with pytest.raises(CorruptShardError, match=re.escape(reason)):
        problems(cataloged)


def test_output_of_tokenize_is_verified_with_its_catalog(tmp_path: Path) -> None:
    """From the jobs of a large file to the parts of a .bin."""
    lines = Path(json.__file__).read_text(encoding="utf-8").splitlines()
    (tmp_path / "tokenizer.model").write_bytes(train_tokenizer(lines, vocab_size=600))
    (tmp_path / "text.jsonl").write_text(
        "".join(json.dumps({"text": x}) + "\n" for x in lines if x)
    )
    config = TokenizeConfig(tokenizer=tmp_path / "tokenizer.model", job_bytes=2000)

    tokenize([tmp_path / "text.jsonl"], tmp_path / "out", config)
    sound = problems(tmp_path / "out")
    (shard,) = verify([tmp_path / "out"], Expected())
    overwrite(tmp_path / "out/text.bin", 1000, struct.pack("<H", 599))

    assert sound == []
    assert shard.entry is not None
    assert len(shard.entry.bin_digests) > 3
    assert "text.bin, bytes" in problems(tmp_path / "out")[0]

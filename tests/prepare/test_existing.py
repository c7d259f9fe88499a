"""Files of other programs are replaced only with ``--overwrite``."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.documents import RejectLimit, Settings, Signals, write_part
from blendtitan.prepare.input_file import ReadOptions
from blendtitan.prepare.mix import MixConfig, mix
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.prepare.workers import do_work
from blendtitan.storage.records import read_folder_catalog
from blendtitan.tokenizers import Encoder, load_tokenizer
from tests.faults.shards import write_shards
from tests.prepare.conftest import WriteJsonl, planned_work, shard_files


def put_foreign_shard(prefix: Path) -> dict[str, bytes]:
    """A shard of another program."""
    write_shards(prefix.parent / "foreign", 1)
    for path in (prefix.parent / "foreign").rglob("*.*"):
        path.rename(f"{prefix}{path.suffix}")
    shutil.rmtree(prefix.parent / "foreign")
    return shard_files(prefix.parent)


def test_a_shard_of_another_program_is_replaced_only_with_overwrite(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    path, output = write_jsonl("a.jsonl", ["hello"]), tmp_path / "out"
    foreign = put_foreign_shard(output / "a")

    with pytest.raises(ConfigError, match=r"a\.idx: exists already.*--overwrite"):
        tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path))
    assert shard_files(output) == foreign
    tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path, overwrite=True))

    assert shard_files(output) != foreign


def test_a_leftover_record_of_document_ends_blocks_nothing(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """``verify`` writes it beside any shard, and it can be derived from the shard."""
    record = tmp_path / "out/a.ends.json"
    record.parent.mkdir()
    record.write_bytes(b"{}")
    tokenize(
        [write_jsonl("a.jsonl", ["hello"])],
        tmp_path / "out",
        TokenizeConfig(tokenizer=tokenizer_path),
    )

    assert record.read_bytes() != b"{}"


def test_a_shard_of_another_program_in_place_of_ours_is_kept(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    path, output = write_jsonl("a.jsonl", ["hello"]), tmp_path / "out"
    tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path))
    foreign = put_foreign_shard(output / "a")

    with pytest.raises(ConfigError, match="another program replaced the shard"):
        tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path))
    assert shard_files(output) == foreign


def test_a_shard_that_another_program_wrote_meanwhile_is_kept(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    work = planned_work([write_jsonl("a.jsonl", ["hello"])], tmp_path / "out", tokenizer_path)
    foreign = put_foreign_shard(tmp_path / "out/a")

    errors = do_work(work, 0, 1)

    assert "exists already" in errors[0]
    assert shard_files(tmp_path / "out") == foreign


def test_a_list_of_rejects_of_another_program_is_kept(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.rejects.jsonl").write_text("mine")

    with pytest.raises(ConfigError, match=r"a\.rejects\.jsonl: exists already"):
        tokenize(
            [write_jsonl("a.jsonl", ["hello"])],
            tmp_path / "out",
            TokenizeConfig(tokenizer=tokenizer_path),
        )
    assert (tmp_path / "out/a.rejects.jsonl").read_text() == "mine"


def test_too_many_rejects_leave_a_list_that_the_next_run_may_replace(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    path, config = write_jsonl("a.jsonl", ["hello", ""]), TokenizeConfig(tokenizer=tokenizer_path)
    for _ in range(2):
        with pytest.raises(InputError, match="--max-rejects allows, which is 0"):
            tokenize([path], tmp_path / "out", config)


def test_two_inputs_never_become_the_same_shard_in_two_commands(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """The second command used to replace the first one's shard. A moved input may do so."""
    config, output = TokenizeConfig(tokenizer=tokenizer_path), tmp_path / "out"
    first, second = write_jsonl("x/a.jsonl", ["one"]), write_jsonl("y/a.jsonl", ["two"])
    tokenize([first], output, config)
    kept = shard_files(output)

    with pytest.raises(ConfigError, match=r"was made from .*x/a\.jsonl.*y/a\.jsonl"):
        tokenize([second], output, config)
    assert shard_files(output) == kept
    first.unlink()
    tokenize([second], output, config)

    assert shard_files(output) != kept


def test_a_text_file_is_split_differently_only_with_overwrite(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Shards of whole files used to be replaced silently by shards of lines."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("one\ntwo\n")
    write_jsonl("text/b.jsonl", ["one"])
    output = tmp_path / "out"
    whole = TokenizeConfig(tokenizer=tokenizer_path)
    lines = replace(whole, options=ReadOptions("line"))
    tokenize([tmp_path / "text"], output, whole)
    kept = shard_files(output)

    with pytest.raises(ConfigError, match=r"out/a: was made with --txt file, .* --txt line"):
        tokenize([tmp_path / "text"], output, lines)
    assert shard_files(output) == kept
    tokenize([tmp_path / "text"], output, replace(lines, overwrite=True))
    assert shard_files(output) != kept
    with pytest.raises(ConfigError, match=r"out/a: was made with --txt line, .* --txt file"):
        tokenize([tmp_path / "text"], output, whole)


def test_a_folder_holds_shards_of_one_tokenizer(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    config, output = TokenizeConfig(tokenizer=tokenizer_path), tmp_path / "out"
    tokenize([write_jsonl("a.jsonl", ["one"])], output, config)
    record = output / ".blendtitan/a.jsonl"
    record.write_text(record.read_text().replace('"eod_id":2', '"eod_id":1'))

    with pytest.raises(ConfigError, match=r"eod_id 1.*this command uses .*eod_id 2"):
        tokenize([write_jsonl("b.jsonl", ["two"])], output, config)


def test_unfinished_work_of_other_settings_is_not_thrown_away(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    path, tokenizer = write_jsonl("a.jsonl", ["one"]), load_tokenizer(tokenizer_path)
    work = planned_work([path], tmp_path / "out", tokenizer_path)
    for job in next(iter(work.plan.values())):
        settings = Settings(tokenizer="another", eod_id=2, dtype="uint16")
        write_part(job, Encoder(tokenizer), settings, Signals(), RejectLimit(0, tmp_path / "stop"))

    with pytest.raises(ConfigError, match=r"unfinished work with .*another.*--overwrite"):
        tokenize([path], tmp_path / "out", TokenizeConfig(tokenizer=tokenizer_path))
    config = TokenizeConfig(tokenizer=tokenizer_path, overwrite=True)
    tokenize([path], tmp_path / "out", config)

    assert shard_files(tmp_path / "out")


def test_mix_replaces_its_own_list_and_no_other_file(tmp_path: Path) -> None:
    write_shards(tmp_path / "tokens", 1)
    output, config = tmp_path / "list.txt", MixConfig()
    mix([tmp_path / "tokens"], output, config)
    mix([tmp_path / "tokens"], output, config)
    output.write_text("1.0 my/own/shard web\n")

    with pytest.raises(ConfigError, match=r"list\.txt: exists already.*--overwrite"):
        mix([tmp_path / "tokens"], output, config)
    assert output.read_text() == "1.0 my/own/shard web\n"
    mix([tmp_path / "tokens"], output, config, overwrite=True)

    assert "blendtitan mix" in output.read_text()


def test_entries_of_the_catalog_that_tokenize_did_not_make_are_kept(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Entries of existing shards: copied with their catalog, or without our records."""
    config, output = TokenizeConfig(tokenizer=tokenizer_path), tmp_path / "out"
    paths = [write_jsonl(f"{name}.jsonl", [name]) for name in "abc"]
    tokenize(paths, output, config)
    listed = read_folder_catalog(output)
    assert listed is not None
    for name in "ab":
        (output / f".blendtitan/{name}.jsonl").unlink()
    (output / "b.idx").unlink()
    tokenize([write_jsonl("d.jsonl", ["d"])], output, config)

    found = read_folder_catalog(output)
    assert found is not None
    assert found.keys() == {"a", "c", "d"}
    assert found["a"] == listed["a"]


def test_a_rewritten_shard_has_its_new_entry_in_the_catalog(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    tokenize([write_jsonl("a.jsonl", ["a"])], output, TokenizeConfig(tokenizer=tokenizer_path))
    (output / ".blendtitan/a.jsonl").unlink()
    path = write_jsonl("a.jsonl", ["a", "more"])
    tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path, overwrite=True))

    found = read_folder_catalog(output)
    assert found is not None
    assert found["a"].documents == 2

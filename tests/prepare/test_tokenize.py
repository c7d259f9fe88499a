import gzip
import json
import os
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from blendtitan.errors import ConfigError, FastTierError, InputError
from blendtitan.prepare import documents as documents_module
from blendtitan.prepare import tokenize as tokenize_module
from blendtitan.prepare.documents import Counts, RejectLimit, Signals
from blendtitan.prepare.engines import Engine, LocalEngine, Submit
from blendtitan.prepare.existing import removed_inputs
from blendtitan.prepare.input_file import ReadOptions
from blendtitan.prepare.progress import Totals
from blendtitan.prepare.report import tokenize_table
from blendtitan.prepare.streams import BadText, zstd
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.prepare.workers import Work, do_work
from blendtitan.storage.list_forms import find_shards
from blendtitan.storage.record_files import read_record, record_path
from blendtitan.storage.records import read_folder_catalog
from blendtitan.tokenizers import Encoder, identity_of, load_tokenizer
from tests.prepare.conftest import WriteJsonl, documents, expected, shard_files


@pytest.fixture
def text_folder(write_jsonl: WriteJsonl) -> Path:
    """Every kind of file, in two corpora; 30, 3, 9, 7 and no documents."""
    folder = write_jsonl("text/code/a.jsonl", (f"a {n} " * n for n in range(1, 31))).parents[1]
    lines = b"".join(b'{"text": "line %d"}\n' % n for n in range(9))
    (folder / "code/b.gz").write_bytes(gzip.compress(lines[:50]) + gzip.compress(lines[50:]))
    (folder / "code/c.jsonl.zst").write_bytes(zstd.compress(lines))
    (folder / "web").mkdir()
    table = pa.table({"id": range(7), "text": [f"row {n}" for n in range(7)]})
    pq.write_table(table, folder / "web/a.parquet", row_group_size=2)
    (folder / "web/empty.jsonl").touch()
    return folder


def test_documents_end_in_a_counted_eod(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Where the index does not count the EOD, every document boundary after the first is off."""
    texts = ["one", "and the second </s>", "3"]
    config = TokenizeConfig(tokenizer=tokenizer_path)

    counts = tokenize([write_jsonl("a.jsonl", texts)], tmp_path / "out", config)

    found = documents(tmp_path / "out/a")
    assert found == expected(tokenizer_path, texts)
    assert list(counts.values()) == [Counts(3, sum(map(len, found)), 0)]


@pytest.mark.parametrize(("workers", "job_bytes"), [(1, 100), (2, 50), (2, 10**9)])
def test_the_result_is_the_same_for_any_number_of_processes_and_size_of_jobs(
    text_folder: Path,
    tokenizer_path: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    workers: int,
    job_bytes: int,
) -> None:
    once = TokenizeConfig(tokenizer=tokenizer_path)
    many = TokenizeConfig(tokenizer=tokenizer_path, job_bytes=job_bytes)

    tokenize([text_folder], tmp_path / "once", once, engine=LocalEngine(1))
    counts = tokenize([text_folder], tmp_path / "many", many, engine=LocalEngine(workers))

    assert shard_files(tmp_path / "once") == shard_files(tmp_path / "many")
    assert [path.relative_to(tmp_path / "many") for path in find_shards(tmp_path / "many")] == [
        Path(name) for name in ("code/a", "code/b", "code/c", "web/a")
    ]
    assert [found.documents for found in counts.values()] == [30, 9, 9, 7, 0]
    assert documents(tmp_path / "many/web/a") == expected(
        tokenizer_path, (f"row {n}" for n in range(7))
    )
    assert "empty.jsonl: contains no documents" in caplog.text


def test_several_keys_make_shards_each(tokenizer_path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one", "title": "two"}\n')
    config = TokenizeConfig(tokenizer=tokenizer_path, keys=("text", "title"))

    tokenize([tmp_path / "a.jsonl"], tmp_path / "out", config)

    assert documents(tmp_path / "out/text/a") == expected(tokenizer_path, ["one"])
    assert documents(tmp_path / "out/title/a") == expected(tokenizer_path, ["two"])


# --- the record of the tokenizer --------------------------------------------------------------


def test_every_shard_has_a_record_of_the_tokenizer(
    text_folder: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    output, tokenizer = tmp_path / "out", load_tokenizer(tokenizer_path)
    tokenize([text_folder], output, TokenizeConfig(tokenizer=tokenizer_path))
    records = [read_record(prefix) for prefix in find_shards(output)]

    assert {record and record.tokenizer for record in records} == {
        identity_of(tokenizer, tokenizer.eos_id)
    }
    assert [record and record.documents for record in records] == [30, 9, 9, 7]


def test_shards_of_an_earlier_release_get_a_record_and_are_kept(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """The work folder says which tokenizer made them."""
    config = TokenizeConfig(tokenizer=tokenizer_path)
    texts, output = write_jsonl("a.jsonl", ["a"]), tmp_path / "out"
    tokenize([texts], output, config)
    record, before = read_record(output / "a"), written_at(output)
    record_path(output / "a").unlink()
    tokenize([texts], output, config)

    assert read_record(output / "a") == record
    assert written_at(output) == before


def test_records_of_shards_are_not_inputs(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """The output may lie in a folder of inputs, and a record ends in .json."""
    config = TokenizeConfig(tokenizer=tokenizer_path)
    folder = write_jsonl("text/a.jsonl", ["a"]).parent
    tokenize([folder], folder / "tokens", config)

    assert len(tokenize([folder], folder / "tokens", config)) == 1


# --- again ------------------------------------------------------------------------------------


def written_at(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in output.glob("*.bin")}


def test_finished_work_is_kept_and_a_changed_input_is_tokenised_again(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    config = TokenizeConfig(tokenizer=tokenizer_path)
    folder, output = write_jsonl("text/a.jsonl", ["a"]).parent, tmp_path / "out"
    write_jsonl("text/b.jsonl", ["b"])
    first = tokenize([folder], output, config)
    before = written_at(output)
    second = tokenize([folder], output, config)
    unchanged = written_at(output)
    write_jsonl("text/b.jsonl", ["changed"])
    tokenize([folder], output, config)
    after = written_at(output)

    assert first == second
    assert unchanged == before
    assert (after["a.bin"] == before["a.bin"], after["b.bin"] == before["b.bin"]) == (True, False)
    assert documents(output / "b") == expected(tokenizer_path, ["changed"])


def test_a_removed_or_truncated_shard_is_written_again(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    config = TokenizeConfig(tokenizer=tokenizer_path)
    path, output = write_jsonl("a.jsonl", ["one", "two"]), tmp_path / "out"
    tokenize([path], output, config)
    whole = shard_files(output)
    for damage in (
        lambda: (output / "a.idx").unlink(),
        lambda: (output / "a.bin").write_bytes(b""),
    ):
        damage()
        tokenize([path], output, config)

        assert shard_files(output) == whole


def test_another_tokenizer_is_an_error_unless_shards_may_be_replaced(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    path, output, other = write_jsonl("a.jsonl", ["one"]), tmp_path / "out", tmp_path / "other"
    tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path))
    other.mkdir()
    tokenizer = Tokenizer(models.BPE({"</s>": 0, "o": 1, "n": 2, "e": 3}, []))
    tokenizer.save(str(other / "tokenizer.json"))
    (other / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')

    with pytest.raises(
        ConfigError, match=r"a: was made with tokenizer .*other/tokenizer\.json.*--overwrite"
    ):
        tokenize([path], output, TokenizeConfig(tokenizer=other))
    tokenize([path], output, TokenizeConfig(tokenizer=other, overwrite=True))

    assert documents(output / "a") == [[1, 2, 3, 0]]


def test_nothing_but_shards_and_records_is_left(
    text_folder: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Remnants of the same shards from killed processes are removed as well."""
    output = tmp_path / "out"
    (output / "code").mkdir(parents=True)
    partial = output / "code/a.bin.partial-0123-45"
    partial.touch()
    os.utime(partial, (0, 0))

    tokenize([text_folder], output, TokenizeConfig(tokenizer=tokenizer_path, job_bytes=50))

    work = [path for path in (output / ".blendtitan").rglob("*") if path.is_file()]
    assert {path.suffix for path in work} == {".jsonl"}
    assert not list(output.rglob("*partial*"))
    assert not list(output.rglob("*.parts"))


def test_the_record_lists_every_job_and_its_inputs(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    path = write_jsonl("a.jsonl", ["one", "two", "three"])

    tokenize([path], tmp_path / "out", TokenizeConfig(tokenizer=tokenizer_path, job_bytes=20))

    record = (tmp_path / "out/.blendtitan/a.jsonl").read_text().splitlines()
    shard, *jobs = map(json.loads, record)
    status = path.stat()
    for line in (shard["source"], *jobs):
        assert (line["input"], line["num_bytes"], line["version"]) == (
            *(str(path), status.st_size, status.st_mtime_ns),
        )
    assert [(job["start"], job["stop"]) for job in jobs] == [(0, 16), (16, 33), (33, 50)]
    assert sum(job["documents"] for job in jobs) == shard["counts"]["documents"] == 3
    assert all(len(job["digests"]["tokens"]) == 32 and job["tokenizer"] for job in jobs)


# --- rejects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("job_bytes", [15, 10**6])
def test_rejected_texts_are_listed_with_place_and_reason(
    tokenizer_path: Path, tmp_path: Path, job_bytes: int
) -> None:
    lines = [
        b'{"text": "good"}',
        b"{bad",
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b'{"id": 1}',
    ]
    lines += [b'{"text": 1}', b'{"text": ""}', b'{"text": "fine"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    config = TokenizeConfig(tokenizer=tokenizer_path, max_rejects=6, job_bytes=job_bytes)

    tokenize([tmp_path / "a.jsonl"], tmp_path / "out", config)

    listed = (tmp_path / "out/a.rejects.jsonl").read_text().splitlines()
    rejects = [json.loads(line) for line in listed]
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)]).tolist()
    assert [reject["byte"] for reject in rejects] == starts[1:7]
    assert {reject["input"] for reject in rejects} == {str(tmp_path / "a.jsonl")}
    reasons = ["JSON", "UTF-8", "surrogate", "no key 'text'", "type int", "empty string"]
    assert all(reason in reject["reason"] for reason, reject in zip(reasons, rejects, strict=True))
    assert documents(tmp_path / "out/a") == expected(tokenizer_path, ["good", "fine"])


def test_several_reasons_are_lines_of_the_error(tokenizer_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": ""}\n{"text": 1}\n')
    config = TokenizeConfig(tokenizer=tokenizer_path, tier="reference")

    with pytest.raises(InputError) as caught:
        tokenize([path], tmp_path / "out", config)
    lines = str(caught.value).splitlines()
    assert "1 error; stopped, because more texts were rejected than" in lines[0]
    places = [line.partition(":")[0] for line in lines[-2:]]
    assert places == [f"{path}, byte 0", f"{path}, byte 13"]
    assert r"\n" not in str(caught.value)


def test_reasons_that_are_not_shown_are_counted(tmp_path: Path) -> None:
    limit = RejectLimit(0, tmp_path / "stop")
    texts = [BadText("row", row, f"reason {row}") for row in range(25)]

    with pytest.raises(InputError) as caught:
        limit.check(25, "a.parquet", texts)
    *lines, last = str(caught.value).splitlines()
    assert len(lines) == 20
    assert last == "a.parquet: 5 other reasons"


def test_too_many_rejected_texts_leave_no_shard_until_they_are_allowed(
    write_jsonl: WriteJsonl,
    tokenizer_path: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, output = write_jsonl("a.jsonl", ["good", "", "", "fine"]), tmp_path / "out"
    few, enough = (
        TokenizeConfig(tokenizer=tokenizer_path, max_rejects=number, tier="reference")
        for number in (1, 2)
    )

    limit = r"^1 error; stopped, because more texts .* --max-rejects allows, which is 1\."
    with pytest.raises(InputError, match=rf"{limit}[^\n]*\n.*empty string"):
        tokenize([path], output, few)
    assert find_shards(output) == []
    tokenize([path], output, enough)

    assert documents(output / "a") == expected(tokenizer_path, ["good", "fine"])
    assert f"rejected: {path}, byte 17: 'text' is an empty string (and 1 more" in caplog.text


def test_bad_texts_of_all_files_count_together(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """The limit is for the whole command. Finished shards stay when it is exceeded."""
    for name in ("a", "b", "c"):
        write_jsonl(f"text/{name}.jsonl", ["good", ""])
    config = TokenizeConfig(tokenizer=tokenizer_path, max_rejects=1)

    with pytest.raises(InputError, match=r"(?s)allows, which is 1\..*'text' is an empty string"):
        tokenize([tmp_path / "text"], tmp_path / "out", config, engine=LocalEngine(1))

    assert len(find_shards(tmp_path / "out")) == 1


def test_the_command_stops_at_the_first_text_beyond_the_limit(
    tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Millions of bad lines should not be read to the last one."""
    monkeypatch.setattr(documents_module, "_BATCH_CHARS", 10_000)
    (tmp_path / "a.jsonl").write_bytes(b'{"content": "x"}\n' * 100_000)
    read: list[int] = []

    with pytest.raises(InputError):
        tokenize(
            [tmp_path / "a.jsonl"],
            tmp_path / "out",
            TokenizeConfig(tokenizer=tokenizer_path),
            engine=RecordingEngine(read),
        )

    assert 0 < sum(read) < (tmp_path / "a.jsonl").stat().st_size


class RecordingEngine(Engine):
    """Does the work in this process, and records how many bytes were read."""

    def __init__(self, read: list[int]) -> None:
        super().__init__(1)
        self._read = read

    @contextmanager
    def started(self, work: Work, count: int) -> Generator[tuple[Submit, Iterator[Totals]]]:
        """One worker, which is this process."""
        signals = Signals()
        signals.add = lambda num_bytes=0, *_: self._read.append(num_bytes)  # type: ignore[method-assign]

        def submit(worker: int) -> Future[list[str]]:
            future: Future[list[str]] = Future()
            future.set_result(do_work(work, worker, count, signals=signals))
            return future

        yield submit, repeat((0, 0, 0))


def test_a_wrong_key_is_one_message_with_the_keys_found(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    for number in range(20):
        (tmp_path / f"{number}.jsonl").write_text('{"content": "x", "id": 1}\n' * 30)

    with pytest.raises(InputError) as caught:
        tokenize([tmp_path], tmp_path / "out", TokenizeConfig(tokenizer=tokenizer_path))

    assert str(caught.value).count("there is no key 'text', found 'content', 'id'") == 1


def test_a_wrong_column_is_one_message_for_all_files(tokenizer_path: Path, tmp_path: Path) -> None:
    for number in range(5):
        pq.write_table(pa.table({"content": ["x"]}), tmp_path / f"{number}.parquet")

    with pytest.raises(InputError, match=r"\(and 4 more files like it\)") as caught:
        tokenize([tmp_path], tmp_path / "out", TokenizeConfig(tokenizer=tokenizer_path))

    assert str(caught.value).count("there is no column 'text', found content") == 1


def test_all_texts_left_out_for_a_reason_are_counted(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the first twenty of each file used to be."""
    for number in range(5):
        write_jsonl(f"text/{number}.jsonl", ["good", *[""] * 50])
    config = TokenizeConfig(tokenizer=tokenizer_path, max_rejects=250)

    tokenize([tmp_path / "text"], tmp_path / "out", config, engine=LocalEngine(1))

    assert "'text' is an empty string (and 249 more like it)" in caplog.text


def test_a_failure_ends_with_the_error_on_a_line_of_its_own(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"text": 1}\n')

    with pytest.raises(InputError) as caught:
        tokenize([tmp_path], tmp_path / "out", TokenizeConfig(tokenizer=tokenizer_path))

    summary, first, second = str(caught.value).splitlines()
    assert "which is 0. A file with an error has no new shard." in summary
    assert first == f"{tmp_path}/a.jsonl, byte 0: 'text' is an empty string"
    assert second.startswith(f"{tmp_path}/a.jsonl, byte 13: 'text' is of type int, expected")


def test_messages_use_the_singular_for_one(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    config = TokenizeConfig(tokenizer=tokenizer_path, max_rejects=1)
    with pytest.raises(InputError, match=r"1 file contains no document at all \(1 text rejected\)"):
        tokenize([write_jsonl("a.jsonl", [""])], tmp_path / "out", config)
    (tmp_path / "b.csv").write_text("id\n1\n")
    with pytest.raises(InputError, match=r"^1 error\. "):
        tokenize([tmp_path / "b.csv"], tmp_path / "out", config)


def test_an_output_without_documents_is_an_error(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Otherwise the missing data would surface much later, in training."""
    path = write_jsonl("a.jsonl", ["", ""])
    config = TokenizeConfig(tokenizer=tokenizer_path, max_rejects=100)

    with pytest.raises(InputError, match=r"no document at all \(2 texts rejected\)"):
        tokenize([path], tmp_path / "out", config)


def test_too_long_documents_are_rejected_until_they_are_allowed(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    path, output = write_jsonl("a.jsonl", ["good", "x" * 90]), tmp_path / "out"
    short, long = (
        TokenizeConfig(
            tokenizer=tokenizer_path, max_rejects=1, options=ReadOptions(max_document_bytes=number)
        )
        for number in (64, 1000)
    )

    tokenize([path], output, short)
    assert documents(output / "a") == expected(tokenizer_path, ["good"])
    tokenize([path], output, long)

    assert documents(output / "a") == expected(tokenizer_path, ["good", "x" * 90])


# --- removed inputs -----------------------------------------------------------------------------


def test_a_removed_input_is_reported_and_its_shard_deleted_on_request(
    write_jsonl: WriteJsonl,
    tokenizer_path: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Otherwise a run would still train on text that was removed, such as for its licence."""
    config, output = TokenizeConfig(tokenizer=tokenizer_path), tmp_path / "out"
    gone = write_jsonl("text/web/b.jsonl", ["must go"])
    write_jsonl("text/web/a.jsonl", ["keep"])
    tokenize([tmp_path / "text"], output, config)
    gone.unlink()

    tokenize([tmp_path / "text"], output, config)
    assert f"{gone}: was removed, but its shard {output}/web/b with 1 document still" in caplog.text
    assert len(find_shards(output)) == 2
    tokenize([tmp_path / "text"], output, replace(config, prune=True))

    assert find_shards(output) == [output / "web/a"]
    assert list(read_folder_catalog(output) or ()) == ["web/a"]
    assert not list(output.rglob("**/b*"))


@pytest.mark.parametrize("again", ["text/web", "text/*/a.jsonl", "text/web/a.jsonl"])
def test_shards_of_other_inputs_are_never_deleted(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path, again: str
) -> None:
    """Several commands may fill one output, and a shard's input may be on another disk."""
    config, output = TokenizeConfig(tokenizer=tokenizer_path), tmp_path / "out"
    gone = write_jsonl("text/books/b.jsonl", ["b"])
    write_jsonl("text/web/a.jsonl", ["a"])
    tokenize([tmp_path / "text"], output, config)
    gone.unlink()

    tokenize([tmp_path / again], output, replace(config, prune=True))

    assert (output / "books/b.bin").exists()


def test_an_input_that_became_empty_leaves_no_shard(
    write_jsonl: WriteJsonl,
    tokenizer_path: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Otherwise a run would train on the old shard, whose text no longer exists."""
    config, output = TokenizeConfig(tokenizer=tokenizer_path), tmp_path / "out"
    emptied = write_jsonl("text/web/b.jsonl", ["must go"])
    write_jsonl("text/web/a.jsonl", ["keep"])
    tokenize([tmp_path / "text"], output, config)
    emptied.write_bytes(b"")

    tokenize([tmp_path / "text"], output, config)

    assert f"{emptied}: contains no documents, so it has no shard" in caplog.text
    assert find_shards(output) == [output / "web/a"]
    assert list(read_folder_catalog(output) or ()) == ["web/a"]
    assert not list(output.glob("web/b*"))


def test_the_table_lists_shards_of_removed_inputs_as_the_catalog_does(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """The total must equal that of `stats`."""
    config, output = TokenizeConfig(tokenizer=tokenizer_path), tmp_path / "out"
    gone = write_jsonl("text/web/b.jsonl", ["must go"])
    write_jsonl("text/web/a.jsonl", ["keep"])
    tokenize([tmp_path / "text"], output, config)
    gone.unlink()

    counts = tokenize([tmp_path / "text"], output, config)
    removed = removed_inputs(output, [tmp_path / "text"], [shard.prefix for shard in counts])
    table = tokenize_table(counts, output, removed)

    names, documents = (map(str, table.rich.columns[at].cells) for at in (0, 2))
    assert [*names] == ["web", "web (input removed)", "total"]
    assert [*documents] == ["1", "1", "2"]


# --- tiers ------------------------------------------------------------------------------------


class DisagreeingEncoder(Encoder):
    """A fast tier that fails in the middle of a run."""

    def encode(self, texts: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Wrong ids, then an error."""
        if "found out" in texts[0]:
            raise FastTierError("gigatoken gives other ids than the reference.")
        return np.ones(len(texts), np.int32), np.ones(len(texts), np.int32)

    def __reduce__(self) -> tuple[object, tuple[Any, ...]]:
        return _disagreeing, (self.path,)


def _disagreeing(path: Path) -> DisagreeingEncoder:
    encoder = DisagreeingEncoder(load_tokenizer(path))
    encoder.tier = "fast"
    return encoder


def use_encoders(monkeypatch: pytest.MonkeyPatch, *encoders: Encoder) -> list[Encoder]:
    """Make the next runs use these encoders; return the unused ones."""
    left = list(encoders)
    monkeypatch.setattr(tokenize_module, "build_encoder", lambda *_, **__: left.pop(0))
    # The tokenizer is that of other tests, too, for which gigatoken is right.
    monkeypatch.setattr(tokenize_module, "refute", lambda *_: None)
    return left


def test_after_a_failure_of_the_fast_tier_all_its_work_is_repeated(
    write_jsonl: WriteJsonl,
    tokenizer_path: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its earlier ids may be wrong too, even in shards of earlier runs."""
    texts = ["of an earlier run", "first" * 100, "found out"]
    files = [write_jsonl(f"{at}.jsonl", [text]) for at, text in enumerate(texts)]
    config, output = TokenizeConfig(tokenizer=tokenizer_path), tmp_path / "out"
    right = Encoder(load_tokenizer(tokenizer_path))
    left = use_encoders(
        monkeypatch, _disagreeing(tokenizer_path), _disagreeing(tokenizer_path), right
    )
    tokenize(files[:1], output, config)
    wrong = documents(output / "0")

    tokenize(files, output, config)

    found = [*documents(output / "0"), *documents(output / "1"), *documents(output / "2")]
    assert found == expected(tokenizer_path, texts)
    assert wrong != documents(output / "0")
    assert left == []
    assert "The reference tier replaces the fast tier's shards" in caplog.text


def test_shards_of_the_fast_tier_are_replaced_if_the_first_documents_differ(
    write_jsonl: WriteJsonl,
    tokenizer_path: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A difference before the run casts the same doubt on earlier shards as one during it."""
    texts = ["of an earlier run", "b"]
    files = [write_jsonl(f"{at}.jsonl", [text]) for at, text in enumerate(texts)]
    config, output = TokenizeConfig(tokenizer=tokenizer_path), tmp_path / "out"
    encoders: list[Encoder | FastTierError] = [
        _disagreeing(tokenizer_path),
        FastTierError("gigatoken gives other ids than the reference."),
        Encoder(load_tokenizer(tokenizer_path)),
    ]

    def build(*_: object, **__: object) -> Encoder:
        encoder = encoders.pop(0)
        if isinstance(encoder, FastTierError):
            raise encoder
        return encoder

    use_encoders(monkeypatch)
    monkeypatch.setattr(tokenize_module, "build_encoder", build)
    tokenize(files[:1], output, config)
    wrong = documents(output / "0")

    tokenize(files, output, config)

    found = [*documents(output / "0"), *documents(output / "1")]
    assert wrong != documents(output / "0")
    assert found == expected(tokenizer_path, texts)
    assert "The reference tier replaces the fast tier's shards" in caplog.text
    assert list((output / ".blendtitan").glob("*.fast-tier-is-wrong"))


def test_a_difference_in_one_output_makes_the_fast_tier_untrusted_in_all(
    write_jsonl: WriteJsonl,
    tokenizer_path: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = TokenizeConfig(tokenizer=tokenizer_path)
    with monkeypatch.context() as encoders:
        use_encoders(encoders, _disagreeing(tokenizer_path))
        tokenize([write_jsonl("a.jsonl", ["a"])], tmp_path / "earlier", config)
        wrong = documents(tmp_path / "earlier/a")
    with monkeypatch.context() as encoders:
        right = Encoder(load_tokenizer(tokenizer_path))
        left = [_disagreeing(tokenizer_path), right]
        encoders.setattr(tokenize_module, "build_encoder", lambda *_, **__: left.pop(0))
        tokenize([write_jsonl("b.jsonl", ["found out"])], tmp_path / "other", config)

    tokenize([tmp_path / "a.jsonl"], tmp_path / "earlier", config)

    assert wrong != documents(tmp_path / "earlier/a") == expected(tokenizer_path, ["a"])
    assert "To try it again, delete" in caplog.text


def test_a_fast_tier_that_was_found_wrong_is_not_trusted_later(
    write_jsonl: WriteJsonl,
    tokenizer_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, output = write_jsonl("a.jsonl", ["found out"]), tmp_path / "out"
    right = Encoder(load_tokenizer(tokenizer_path))
    use_encoders(monkeypatch, _disagreeing(tokenizer_path), right)
    tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path))
    tiers: list[str] = []

    def build(_: object, tier: str, **__: object) -> Encoder:
        tiers.append(tier)
        return right

    monkeypatch.setattr(tokenize_module, "build_encoder", build)
    tokenize([write_jsonl("b.jsonl", ["b"])], output, TokenizeConfig(tokenizer=tokenizer_path))

    assert tiers == ["reference"]
    with pytest.raises(FastTierError, match="not trusted: run again with --tokenizer-tier auto"):
        tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path, tier="fast"))


def test_the_reference_tier_replaces_shards_of_the_fast_tier_but_not_the_reverse(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    path, output = write_jsonl("a.jsonl", ["a"]), tmp_path / "out"
    times = []
    for tier in ("fast", "auto", "reference", "fast"):
        tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path, tier=tier))
        times.append((output / "a.bin").stat().st_mtime_ns)

    assert times[0] == times[1] < times[2] == times[3]


def test_shards_that_the_fast_tier_made_without_a_proof_are_made_again(
    write_jsonl: WriteJsonl,
    tokenizer_path: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Earlier releases trusted spot checks, which do not find rare faults."""
    path, output = write_jsonl("a.jsonl", ["a"]), tmp_path / "out"
    tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path, tier="reference"))
    record = output / ".blendtitan/a.jsonl"
    record.write_bytes(record.read_bytes().replace(b'"tier":"reference"', b'"tier":"fast"'))
    (output / "a.bin").write_bytes((output / "a.bin").read_bytes()[::-1])

    tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path))

    assert documents(output / "a") == expected(tokenizer_path, ["a"])
    assert "shards rebuilt: 1. The fast tokenizer tier (fast) encoded them" in caplog.text


# --- errors -----------------------------------------------------------------------------------


def test_a_file_that_fails_leaves_the_old_shard_and_the_other_files(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    config = TokenizeConfig(tokenizer=tokenizer_path)
    text, out = write_jsonl("text/a.jsonl", ["old"]).parent, tmp_path / "out"
    (text / "a.jsonl").rename(text / "a.txt")
    tokenize([text], out, config)
    old = shard_files(out)
    (text / "a.txt").rename(text / "a.xz")
    write_jsonl("text/b.jsonl", ["other"])
    (text / "c.gz").write_bytes(b"not gzip")
    (text / "d.parquet").write_bytes(b"not parquet")

    with pytest.raises(InputError, match=r"(?s)d\.parquet: cannot be.*c\.gz: the compressed data"):
        tokenize([text], out, config)

    found = shard_files(out)
    assert {name: found[name] for name in old} == old
    files = (".bin", ".docs.parquet", ".idx")
    assert sorted(found) == [f"{name}{file}" for name in ("a", "b") for file in files]


def test_a_tokenizer_without_eos_is_an_error(write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    Tokenizer(models.BPE({"a": 0}, [])).save(str(tokenizer))

    with pytest.raises(ConfigError, match="has no EOS to put after each document"):
        tokenize(
            [write_jsonl("a.jsonl", ["a"])], tmp_path / "out", TokenizeConfig(tokenizer=tokenizer)
        )


@pytest.mark.parametrize("eos", [None, 0, "</s>"])
def test_a_tokenizer_without_any_control_symbol_is_not_asked_to_name_one(
    write_jsonl: WriteJsonl, tmp_path: Path, eos: str | int | None
) -> None:
    tokenizer = tmp_path / "tokenizer.model"
    with tokenizer.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(Path(__file__).read_text(encoding="utf-8").splitlines()),
            model_writer=file,
            **{"vocab_size": 200, "bos_id": -1, "eos_id": -1, "minloglevel": 1},
        )

    with pytest.raises(ConfigError, match="no control symbol at all") as caught:
        tokenize(
            [write_jsonl("a.jsonl", ["a"])],
            tmp_path / "out",
            TokenizeConfig(tokenizer=tokenizer, eos=eos),
        )
    assert "--eod-id" not in str(caught.value)


@pytest.mark.parametrize("setting", [{"max_rejects": -1}, {"job_bytes": 0}])
def test_a_setting_out_of_range_is_an_error(setting: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        TokenizeConfig(tokenizer=Path("t"), **setting)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("eos", ["<s>", 1])
def test_another_control_token_may_end_documents(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path, eos: str | int
) -> None:
    config = TokenizeConfig(tokenizer=tokenizer_path, eos=eos)

    tokenize([write_jsonl("a.jsonl", ["one"])], tmp_path / "out", config, engine=LocalEngine(1))

    assert documents(tmp_path / "out/a") == [[*load_tokenizer(tokenizer_path).encode("one"), 1]]


def test_documents_may_begin_with_bos(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Some models are trained this way. Shards with and without BOS have different settings."""
    path, config = write_jsonl("a.jsonl", ["one", "two"]), TokenizeConfig(tokenizer=tokenizer_path)

    tokenize([path], tmp_path / "out", replace(config, bos=True), engine=LocalEngine(1))

    whole = expected(tokenizer_path, ["one", "two"])
    assert documents(tmp_path / "out/a") == [[1, *document] for document in whole]
    with pytest.raises(ConfigError):
        tokenize([path], tmp_path / "out", config)


def test_a_bare_tokenizer_json_takes_its_eos_from_the_command(
    write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    bare = Tokenizer(models.BPE({"a": 0, "<end>": 1}, []))
    bare.add_special_tokens(["<end>"])
    bare.save(str(tmp_path / "tokenizer.json"))
    path, config = write_jsonl("a.jsonl", ["aa"]), TokenizeConfig(tokenizer=tmp_path)

    with pytest.raises(ConfigError, match="--eos-token"):
        tokenize([path], tmp_path / "out", config)
    with pytest.raises(ConfigError, match=r"has no token '<eos>'.*such as <end>"):
        tokenize([path], tmp_path / "out", replace(config, eos="<eos>"))
    tokenize([path], tmp_path / "out", replace(config, eos="<end>"), engine=LocalEngine(1))

    assert documents(tmp_path / "out/a") == [[0, 0, 1]]


def test_the_output_and_the_tokenizer_may_have_paths_that_are_not_utf8(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "b\udcff"
    folder.mkdir()
    tokenizer = folder / "tokenizer.model"
    tokenizer.write_bytes(tokenizer_path.read_bytes())
    write_jsonl("a.jsonl", ["a"])

    tokenize([f"{folder}/../a.jsonl"], folder / "out", TokenizeConfig(tokenizer=tokenizer))

    assert documents(folder / "out/a") == expected(tokenizer_path, ["a"])


def test_documents_with_unknown_tokens_and_without_text_are_counted_and_reported(
    write_jsonl: WriteJsonl, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Training on them teaches nothing, and they indicate an unsuitable tokenizer."""
    vocab = {"<unk>": 0, "</s>": 1, "a": 2}
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    made.save(str(tmp_path / "tokenizer.json"))
    names = {"eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    path = write_jsonl("a.jsonl", ["a b c", "a", " ", "b"])

    counts = tokenize(
        [path], tmp_path / "out", TokenizeConfig(tokenizer=tmp_path), engine=LocalEngine(1)
    )

    [found] = counts.values()
    assert (found.documents, found.with_unknown, found.without_text) == (4, 2, 1)
    assert "documents with the unknown token: 2 of 4." in caplog.text
    assert "documents of EOD only: 1 of 4." in caplog.text


@pytest.mark.parametrize("keeps_lines", [False, True])
def test_a_tokenizer_that_loses_line_breaks_is_named(
    write_jsonl: WriteJsonl, tmp_path: Path, caplog: pytest.LogCaptureFixture, keeps_lines: bool
) -> None:
    """SentencePiece does it by default, and every document would become one line."""
    path = tmp_path / "tokenizer.model"
    kept: dict[str, Any] = {
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "byte_fallback": True,
    }
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["def f(x):", "    return x"] * 50),
            model_writer=file,
            vocab_size=300,
            hard_vocab_limit=False,
            minloglevel=2,
            **(kept if keeps_lines else {}),
        )

    tokenize([write_jsonl("a.jsonl", ["one"])], tmp_path / "out", TokenizeConfig(tokenizer=path))

    warning = f"{path}: the tokenizer turns line breaks into spaces"
    assert (warning in caplog.text) is not keeps_lines


def test_a_tokenizer_without_the_letters_of_words_is_not_accused_of_losing_lines(
    write_jsonl: WriteJsonl, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of proteins drops spaces as well, and its data has none."""
    letters = {letter: i for i, letter in enumerate(["</s>", *"ACDEFGHIKLMNPQRSTVWY/s<>"])}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.add_special_tokens(["</s>"])
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')

    tokenize([write_jsonl("a.jsonl", ["MKV"])], tmp_path / "out", TokenizeConfig(tokenizer=path))

    assert "line breaks" not in caplog.text

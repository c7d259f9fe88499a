"""Real datatrove pipelines that end in our shards."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader

from blendtitan.errors import ConfigError, FastTierError, InputError
from blendtitan.prepare import datatrove_sink
from blendtitan.prepare.datatrove_sink import ShardSink
from blendtitan.storage.list_forms import find_shards
from blendtitan.storage.reader import file_signature
from blendtitan.storage.record_files import read_record
from blendtitan.storage.records import read_ends
from blendtitan.storage.writer import ShardWriter
from blendtitan.tokenizers import Encoder, identity_of, load_tokenizer
from tests.prepare.conftest import WriteJsonl, documents, expected


def is_kept(document: Document) -> bool:
    return "drop" not in document.text


def given(*texts: str) -> list[Document]:
    return [Document(text=text, id=f"id-{at}") for at, text in enumerate(texts)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_of_filters_feeds_shards(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Two tasks in two processes, of one file each; one of them has nothing left to write."""
    write_jsonl("text/a.jsonl", ["one", "drop this", "two </s>", "three"])
    write_jsonl("text/b.jsonl", ["drop all"])
    output = tmp_path / "tokens" / "web"

    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(str(tmp_path / "text")),
            LambdaFilter(is_kept),
            ShardSink(output, tokenizer_path),
        ],
        tasks=2,
        workers=2,
        logging_dir=str(tmp_path / "logs"),
    ).run()

    assert find_shards(output) == [output / "00000"]
    assert documents(output / "00000") == expected(tokenizer_path, ["one", "two </s>", "three"])
    stats = json.loads((tmp_path / "logs/stats.json").read_text())
    assert stats[-1]["stats"]["documents"]["total"] == 3


def test_a_repeated_task_replaces_its_shard(tokenizer_path: Path, tmp_path: Path) -> None:
    partial = tmp_path / "00003.bin.partial-0123-45"
    partial.touch()
    os.utime(partial, (0, 0))  # of a process that was killed
    sink = ShardSink(tmp_path, tokenizer_path)
    sink.run(given("old"), rank=3, world_size=4)
    sink.run(given("new"), rank=3, world_size=4)
    replaced = documents(tmp_path / "00003")
    sink.run(iter([]), rank=3, world_size=4)

    assert replaced == expected(tokenizer_path, ["new"])
    assert list(tmp_path.iterdir()) == []


def test_a_task_records_the_tokenizer(tokenizer_path: Path, tmp_path: Path) -> None:
    ShardSink(tmp_path, tokenizer_path).run(given("text"))
    record = read_record(tmp_path / "00000")
    tokenizer = load_tokenizer(tokenizer_path)

    assert record is not None
    assert record.tokenizer == identity_of(tokenizer, tokenizer.eos_id)


def test_a_task_records_how_its_documents_end(tokenizer_path: Path, tmp_path: Path) -> None:
    ShardSink(tmp_path, tokenizer_path).run(given("one", "two"))
    stamp = file_signature(str(tmp_path / "00000"))
    ends = stamp and read_ends(
        str(tmp_path / "00000"), stamp, load_tokenizer(tokenizer_path).eos_id
    )

    assert ends is not None
    assert ends.num_eod == ends.num_documents == 2


def test_texts_that_cannot_be_used_are_listed_and_counted(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    mixed = given("good", "", "\ud800", "fine")
    with pytest.raises(
        InputError, match=r"'id-1': the text is an empty(?s:.*)2 documents rejected"
    ):
        ShardSink(tmp_path, tokenizer_path, max_rejects=1).run(mixed)
    assert find_shards(tmp_path) == []

    ShardSink(tmp_path, tokenizer_path, max_rejects=2).run(mixed)

    lines = (tmp_path / "00000.rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["document"] for line in lines] == [1, 2]
    assert "surrogate" in json.loads(lines[1])["reason"]
    assert documents(tmp_path / "00000") == expected(tokenizer_path, ["good", "fine"])


def test_a_failing_fast_tier_writes_nothing_and_names_the_remedy(
    tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Encoder):
        def encode(self, texts: list[str]):
            raise FastTierError("gigatoken gives other ids.")

    failing = Failing(load_tokenizer(tokenizer_path))
    monkeypatch.setattr(datatrove_sink, "build_encoder", lambda *_: failing)

    with pytest.raises(FastTierError) as caught:
        ShardSink(tmp_path, tokenizer_path).run(given("text"))
    assert "tier='reference'" in caught.value.__notes__[0]
    assert list(tmp_path.iterdir()) == []


def test_max_rejects_is_a_count(tokenizer_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_rejects is -1"):
        ShardSink(tmp_path, tokenizer_path, max_rejects=-1)


def test_a_shard_of_another_program_is_replaced_only_with_overwrite(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    with ShardWriter.create(tmp_path / "00000", dtype=np.dtype("<u2")) as writer:
        writer.add_document(np.array([7, 8, 9]))

    with pytest.raises(ConfigError, match=r"00000\.idx: exists already.*overwrite=True"):
        ShardSink(tmp_path, tokenizer_path).run(given("one"))
    assert documents(tmp_path / "00000") == [[7, 8, 9]]
    ShardSink(tmp_path, tokenizer_path, overwrite=True).run(given("one"))

    assert documents(tmp_path / "00000") == expected(tokenizer_path, ["one"])

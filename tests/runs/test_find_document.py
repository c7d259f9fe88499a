"""The readings of a document, against a search of every slot."""

import json
import shutil
from pathlib import Path

import pytest

from blendtitan.cli import main
from blendtitan.errors import ConfigError
from blendtitan.runs.explain import explain_slots
from blendtitan.runs.find_document import find_document
from blendtitan.runs.kept_shards import with_kept_shards
from blendtitan.runs.open import OpenRun, open_run, read_run
from tests.conftest import EOD, WriteShard
from tests.runs.conftest import WriteRun
from tests.runs.test_explain import CORPORA, FLAGS, SEGMENTS, changed

__all__ = ["changed"]

Readings = dict[tuple[str, int], list[tuple[int, tuple[tuple[int, int], ...]]]]


def all_readings(source: OpenRun, num_slots: int) -> Readings:
    """The slots that hold part of each document, and its tokens there."""
    found: Readings = {}
    for sample in explain_slots(source, range(num_slots), with_texts=False):
        held: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for part in sample.parts:
            for document in part.documents:
                assert part.prefix is not None
                spans = held.setdefault((part.prefix, document.document_id), [])
                spans.append((document.first, document.first + document.count))
        for key, spans in held.items():
            found.setdefault(key, []).append((sample.window.slot, tuple(spans)))
    return found


def check_all(source: OpenRun, num_slots: int) -> None:
    expected = all_readings(source, num_slots)

    assert len(expected) > 100
    for (shard, document_id), readings in expected.items():
        found = find_document(source, shard, document_id, stop_slot=num_slots).readings
        assert [(one.window.slot, one.tokens) for one in found] == readings


@FLAGS
def test_every_document_is_found_in_every_slot_that_reads_it(
    write_run: WriteRun, blend: bool
) -> None:
    path = write_run(
        CORPORA,
        blendcorpus={"segment": SEGMENTS, "blend_sample_in_corpus": blend, "split": "1"},
    )
    check_all(open_run(path), 700)


def test_documents_with_inserted_eods_are_found(
    write_run: WriteRun, write_shard: WriteShard
) -> None:
    path = write_run({"web": (1, [400, 300])})
    write_shard("web/web_1", [[3 + i] * (i % 7) for i in range(120)])

    check_all(open_run(path), 300)


def test_documents_of_shards_of_one_name_and_size_are_distinguished(
    write_run: WriteRun, write_shard: WriteShard, tmp_path: Path
) -> None:
    path = write_run({"web": (1, [40])})
    for place in range(2):
        write_shard(f"{place}/part", [[3 + 5000 * place + 9 * i, EOD] for i in range(60)])
    (tmp_path / "web.txt").write_text("1 0/part web\n1 1/part web")

    check_all(open_run(path), 60)


def test_documents_are_found_in_all_phases_of_a_changed_run(
    changed: tuple[Path, list[list[int]]],
) -> None:
    """Even in remainders of unfinished epochs of other lengths."""
    folder, rows = changed

    check_all(open_run(folder), len(rows))


def test_a_missing_document_is_refused(write_run: WriteRun) -> None:
    source = open_run(write_run(CORPORA))

    with pytest.raises(ConfigError, match=r"web_0: document 900 is not in the train split, which"):
        find_document(source, "web_0", 900)
    with pytest.raises(
        ConfigError, match=r"is not among the 6 shards .* most similar is web_0. Na"
    ):
        find_document(source, "eb_0", 0)


def test_of_a_shard_that_was_dropped_the_error_says_that_the_run_has_read_it(
    changed: tuple[Path, list[list[int]]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A step that read it is shown with the corpus: names such as 0 are in every corpus."""
    folder, _ = changed
    file_list = Path(read_run(folder / "config.toml").blend.data_file_list)
    lines = file_list.read_text().splitlines()
    file_list.write_text("\n".join(line for line in lines if "web_0" not in line))
    source = open_run(folder)
    for shard in ("web_0", "web/web_0", "/old/tokens/web/web_0"):
        with pytest.raises(ConfigError, match=f"^{shard}: the run has read this .* no longer in"):
            find_document(source, shard, 0)
    with pytest.raises(ConfigError, match=r"^code/web_9: is not .* most similar is code/code_0\."):
        find_document(source, "code/web_9", 0)

    assert main(["explain", str(folder), "--steps", "1-2"]) == 0
    assert "  web/web_0: tokens " in capsys.readouterr().out


def test_documents_are_not_known_from_a_checkpoint_alone(
    changed: tuple[Path, list[list[int]]],
) -> None:
    with pytest.raises(
        ConfigError, match="finding a document needs the data, which is not available"
    ):
        find_document(open_run(None, changed[0]), "web_0", 0)


def test_the_originals_order_has_no_inverse(write_run: WriteRun, tmp_path: Path) -> None:
    order = {"order": "blendcorpus", "data_cache_path": str(tmp_path / "cache")}
    source = open_run(write_run({"web": (2, [900])}, blendcorpus=order))

    with pytest.raises(ConfigError, match="the original's order has no inverse"):
        find_document(source, "web_0", 0)


def test_the_command_lists_the_readings_up_to_a_step(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(CORPORA)
    expected = find_document(open_run(path), "web/web_0", 5, stop_slot=320).readings
    command = ["explain", str(path), "--document", "web/web_0:5", "--until", "40", "--ranks", "2"]

    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["slot"] for one in found["readings"]] == [one.window.slot for one in expected]
    assert [one["step"] for one in found["readings"]] == [
        one.window.slot // 8 + 1 for one in expected
    ]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"is read by {len(expected)} of the first 320 samples." in lines[2]
    assert [line.split()[5] for line in lines[5:]] == [f"{one.window.slot}" for one in expected]
    assert main(["explain", str(path), "--step", "1", "--until", "2"]) == 1
    with pytest.raises(SystemExit):
        main(["explain", str(path), "--document", "web_0"])


def test_shards_that_the_list_no_longer_names_are_found_in_the_run_folder(
    changed: tuple[Path, list[list[int]]], capsys: pytest.CaptureFixture[str]
) -> None:
    """``prepare`` keeps the shards of a corpus that was removed from ``data.toml``."""
    folder, _ = changed
    expected = find_document(open_run(folder), "web/web_0", 5).readings
    file_list = Path(read_run(folder / "config.toml").blend.data_file_list)
    around = ["explain", str(folder), "--around", "9"]
    lines = file_list.read_text().splitlines()
    file_list.write_text("\n".join(line for line in lines if not line.endswith(" web")))
    assert main(around) == 1
    error = capsys.readouterr().err
    (file_list.parent / "tokens").mkdir()
    shutil.move(file_list.parent / "web", file_list.parent / "tokens/web")
    found = with_kept_shards(open_run(folder))

    assert "which is no longer in the run's file list. Restore the shard" in error
    assert main(around) == 0
    assert "2 shards that the file list no longer names found in " in capsys.readouterr().out
    assert found.contents is not None
    document = find_document(found, "web/web_0", 5)
    assert document.prefix.endswith("/tokens/web/web_0")
    assert document.readings == expected

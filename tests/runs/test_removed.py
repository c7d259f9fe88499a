"""``blendtitan removed``, and removed documents in explain, audit, plan and report."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from blendtitan import DataLoader
from blendtitan.batch_schedule import BatchStage, saved_schedule
from blendtitan.cli import main
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.runs.audit import audit_run, audit_table, compare_runs
from blendtitan.runs.explain import explain_slots, sample_report
from blendtitan.runs.find_document import find_document
from blendtitan.runs.open import data_of_run, open_run, read_run
from blendtitan.runs.plan import plan_run
from blendtitan.runs.removed import removed_report
from blendtitan.runs.report.facts import gather_run
from blendtitan.settings.toml import RESOLVED
from blendtitan.state import STATE_KEY
from blendtitan.tables import as_text
from tests.runs.conftest import WriteRun
from tests.runs.test_audit import save

CORPORA = {"web": (0.6, [900, 700]), "code": (0.4, [450])}
FIRST = "web_0 3\ncode_0 7\n"
LATER = "web_1 40\nweb_0 150\n"


@pytest.fixture
def run(write_run: WriteRun, tmp_path: Path) -> Path:
    """A run whose list grew after step 30, and then again, before the start from step 50."""
    removed = tmp_path / "removed.txt"
    removed.write_text(FIRST)
    path = write_run(
        CORPORA, blendcorpus={"removed_documents": str(removed)}, training={"steps": 100}
    )
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / RESOLVED).write_text(path.read_text())
    loader = None
    for text, step in ((FIRST, 30), (FIRST + LATER, 50)):
        removed.write_text(text)
        now = DataLoader(data_of_run(read_run(folder)).train, 8, num_workers=0)
        if loader is not None:
            now.load_state_dict(loader.state_dict())
        loader = now
        stream = iter(loader)
        while loader.consumed_samples < 8 * step:
            next(stream)
        more = saved_schedule((BatchStage(global_batch_size=8),))
        save(folder / "checkpoint", step, loader.state_dict(more=more))
    removed.write_text(FIRST + LATER + "code_0 30\n")
    return folder


def test_each_document_is_listed_where_it_was_read_and_proved_to_be_left_out(run: Path) -> None:
    report = removed_report(open_run(run))
    found = {
        (Path(each.document.prefix).name, each.document.document_id): each
        for each in report.documents
    }

    assert {key: each.document.removed_from for key, each in found.items()} == {
        ("web_0", 3): 0,
        ("code_0", 7): 0,
        ("web_1", 40): 240,
        ("web_0", 150): 240,
        ("code_0", 30): 400,
    }
    for (shard, number), each in found.items():
        document = each.document
        plain = find_document(open_run(run), shard, number)
        slots = [one.window.slot for one in (*document.readings, *document.left_out)]
        assert slots == sorted(slots)
        assert plain == document
        assert each.num_checked == len(document.left_out) > 0
        assert not each.wrong_slots
    read = found["code_0", 30].document.readings[0]
    sample = next(
        sample
        for sample in explain_slots(open_run(run), [read.window.slot])
        for part in sample.parts
        if any(one.document_id == 30 and not one.is_removed(sample.window.slot)
               for one in part.documents)
    )  # fmt: skip
    assert sample.place.step == read.window.slot // 8 + 1 == read.place.step


def test_a_sample_that_still_reads_a_document_is_an_error(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof reads samples; it does not trust what the dataset says about itself."""
    from blendtitan.dataset import removed

    monkeypatch.setattr(removed, "removed_parts", lambda *arguments: iter(()))

    with pytest.raises(ResumeError, match=r"document 3 is removed from slot 0 on, but slot \d+ st"):
        removed_report(open_run(run)).check()


def test_the_command_prints_the_readings_and_the_proof(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["removed", str(run)])
    text = capsys.readouterr().out
    assert "of 5 removed documents had been read before the removal" in text
    assert "each has EOD in its place, and no labels there." in text

    longer = tmp_path / "longer.txt"
    longer.write_text((tmp_path / "removed.txt").read_text() + "web_1 3\n")
    main(["removed", str(run), "--list", str(longer), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["documents"][-1]["removed_from_slot"] == 400
    assert [len(each["readings"]) > 0 for each in found["documents"]] == [False] * 2 + [True] * 4

    (tmp_path / "other.txt").write_text("web_1 3\n")
    assert main(["removed", str(run), "--list", str(tmp_path / "other.txt")]) == 1
    assert "was trained without 4 documents from slot 240 on" in capsys.readouterr().err


def test_nothing_is_called_proved_if_no_later_sample_has_a_removed_document(run: Path) -> None:
    report = removed_report(open_run(run))
    ended = [
        replace(each, document=replace(each.document, left_out=())) for each in report.documents
    ]

    verdict = replace(report, documents=tuple(ended)).verdict()

    assert "No later sample of the run would contain one of them." in verdict
    assert "EOD in its place" not in verdict


def test_a_run_without_a_list_is_an_error(write_run: WriteRun) -> None:
    with pytest.raises(ConfigError, match=r"removed_documents is not set\. Set it, or name a list"):
        removed_report(open_run(write_run(CORPORA)))


def test_explain_marks_removed_documents_and_hides_their_texts(run: Path) -> None:
    source = open_run(run)
    document = find_document(source, "web_1", 40)
    before, after = document.readings[0].window.slot, document.left_out[0].window.slot
    texts = {
        slot: "\n".join(
            map(
                str,
                sample_report(source, [slot], None, is_range=False, is_full=True, as_json=False)
                .lines(),
            )
        )
        for slot in (before, after)
    }  # fmt: skip

    assert ', removed from slot 240: "w' in texts[before]
    assert ", removed from slot 240\n" in texts[after] + "\n"
    assert ', removed from slot 240: "w' not in texts[after]
    lines = [str(line) for line in document.lines()]
    assert f"It is removed from slot 240 on: {len(document.left_out)} later samples" in lines[1]


def test_audit_plan_and_report_tell_what_was_removed(run: Path) -> None:
    audited = audit_run(run)

    assert [one.problems for one in audited] == [[], []]
    assert "removed documents" in str(as_text(audit_table(audited)))
    assert audited[1].json()["removed"][1]["first_slot"] == 240
    plan = plan_run(read_run(run))
    assert any("5 documents of " in each and "are removed" in each for each in plan.warnings)
    assert gather_run(run, name="run").removed == (
        "2 documents from slot 0; 2 documents from slot 240; 1 document from slot 400"
    )


def test_audit_notices_a_removal_that_is_forgotten(run: Path) -> None:
    """A later checkpoint that claims to have read them is not one of this run."""
    audited = audit_run(run)
    checkpoint = run / "checkpoint"
    state = json.loads(audited[1].stored.state_dict[STATE_KEY])  # pyright: ignore
    forged = {**state, "removed": state["removed"][1:]}
    save(checkpoint, 50, {STATE_KEY: json.dumps(forged)})
    found = audit_run(run)

    assert found[1].problems == [
        "removed other documents before slot 240 than the previous checkpoint"
    ]
    parting = compare_runs(audited, found)
    assert parting.slot == 0
    assert "removed: 2 documents from slot 0; 4 documents from slot 240" in parting.reasons[0]

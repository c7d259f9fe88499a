"""Explained slots against the loader's samples, slot by slot, and their places on disk."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendtitan import BlendConfig, DataLoader, SegmentConfig, build_datasets
from blendtitan.balance import balance_steps
from blendtitan.batch_schedule import BatchStage, saved_schedule
from blendtitan.cli import main
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import ConfigError
from blendtitan.order.slots import Course
from blendtitan.runs.explain import Explained, explain_slots, select_step
from blendtitan.runs.open import OpenRun, open_run, read_run
from blendtitan.runs.places import Ranks
from blendtitan.runs.run_folder import DATA
from blendtitan.runs.slots import step_slots
from blendtitan.storage.reader import ShardIndex
from tests.conftest import EOD, WriteShard, add_header
from tests.runs.conftest import WriteRun
from tests.runs.test_audit import save

CORPORA = {"web": (0.6, [900, 700]), "code": (0.3, [450]), "books": (0.1, [300, 6, 200])}
SEGMENTS = [
    {"from_step": 20, "shares": {"code": 0.6}},
    {"from_tokens": 8 * 8 * 50, "shares": {"books": 0}},
]
FLAGS = pytest.mark.parametrize("blend", [True, False], ids=["blended", "one row"])


def dataset_of(path: Path) -> Dataset:
    dataset = build_datasets(read_run(path).blend).train
    assert dataset is not None
    return dataset


def on_disk(prefix: str) -> tuple[np.ndarray[Any, Any], ShardIndex]:
    index = ShardIndex.open(Path(prefix))
    return np.fromfile(f"{prefix}.bin", index.dtype), index


def tokens_of(source: OpenRun, sample: Explained) -> list[int]:
    assert source.contents is not None
    return source.contents.tokens([part.stretch for part in sample.parts]).tolist()


def check_places(source: OpenRun, sample: Explained) -> None:
    """Check bytes, documents and texts of a sample against the files."""
    for part in sample.parts:
        assert source.contents is not None
        assert part.prefix is not None
        assert part.byte_range is not None
        tokens = source.contents.tokens([part.stretch]).tolist()
        content, index = on_disk(part.prefix)
        size = index.dtype.itemsize
        ends = {index.document_start(i + 1) for i in range(index.num_documents)}
        has_eod = all(content[end - 1] == EOD for end in ends)
        first, end = (at // size for at in part.byte_range)
        read = content[first:end].tolist()

        assert read == (tokens if has_eod else [token for token in tokens if token != EOD])
        found: list[int] = []
        for document, text in zip(part.documents, part.texts, strict=True):
            i = document.document_id
            whole = content[index.document_start(i) : index.document_start(i + 1)].tolist()
            whole += [] if has_eod else [EOD]
            own = whole[document.first : document.first + document.count]

            assert len(whole) == document.document_tokens
            assert text == " ".join(f"w{token}" for token in own if token != EOD)
            found += own
        assert found == tokens


@FLAGS
def test_a_thousand_explained_slots_equal_the_loaders_samples(
    write_run: WriteRun, blend: bool
) -> None:
    """With segments, a row that wraps around, rows of several shards, and many epochs."""
    path = write_run(
        CORPORA,
        blendcorpus={"segment": SEGMENTS, "blend_sample_in_corpus": blend, "split": "1"},
    )
    source, dataset = open_run(path), dataset_of(path)
    for sample in explain_slots(source, range(1000)):
        window = sample.window
        expected = dataset[window.slot]

        assert tokens_of(source, sample) == [*expected.input_ids.tolist(), expected.labels[-1]]
        assert (window.corpus, window.draw) == (expected.corpus, expected.draw)
        assert (window.epoch, window.window) == (expected.epoch, expected.window)
        assert sample.parts[0].prefix == expected.shard
        check_places(source, sample)


def test_inserted_eods_are_of_their_documents_and_not_of_the_bytes(
    write_run: WriteRun, write_shard: WriteShard
) -> None:
    path = write_run({"web": (1, [400, 300])}, blendcorpus={"split": "50,40,10"})
    rng = np.random.default_rng(0)
    lens = rng.integers(0, 9, 90)
    documents = [rng.integers(3, 20_000, length).tolist() for length in [3, *lens, 2]]
    write_shard("web/web_1", documents)
    source, dataset = open_run(path), dataset_of(path)
    for sample in explain_slots(source, range(300)):
        expected = dataset[sample.window.slot]

        assert tokens_of(source, sample) == [*expected.input_ids.tolist(), expected.labels[-1]]
        check_places(source, sample)


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_ranks_of_balanced_steps_are_those_of_the_loaders(
    write_run: WriteRun, ranks: int
) -> None:
    """With skipped slots, and steps of two sizes."""
    path = write_run(
        CORPORA,
        training={
            "seq_len": 16,
            "batch_schedule": [{"from_step": 3, "global_batch_size": 16}],
        },
        blendcorpus={
            "balance": "attention",
            "provide_attention_mask": True,
            "skip": [{"from_slot": 10, "to_slot": 14}],
        },
    )
    source, moved = open_run(path), 0
    courses: list[Course] = []
    for rank in range(ranks):
        loader = DataLoader(dataset_of(path), 2, dp_rank=rank, dp_world_size=ranks, num_workers=0)
        loader.set_skips([(10, 15)])
        balance_steps(loader, batches_per_step=4 // ranks, later=[(29, 8 // ranks)])
        courses.append(loader.course)
    for step in range(1, 7):
        first = step_slots(source.slots, step)[0]
        for rank, course in enumerate(courses):
            chosen = select_step(source, step, ranks=Ranks(ranks, 2), rank=rank)
            places = [each.place for each in explain_slots(source, chosen, ranks=Ranks(ranks, 2))]

            assert chosen == course.slots(first).reshape(-1).tolist()
            assert [(at.rank, at.micro_batch, at.row) for at in places] == [
                (rank, *divmod(i, 2)) for i in range(len(chosen))
            ]
            moved += sum(at.sample % (2 * ranks) // 2 != rank for at in places if at.sample)
    assert moved > 0


def test_ranks_of_balanced_steps_need_the_data(write_run: WriteRun, tmp_path: Path) -> None:
    own = {"balance": "attention", "provide_attention_mask": True}
    path = write_run(CORPORA, training={"global_batch_size": 4}, blendcorpus=own)
    trained(tmp_path / "run/checkpoint", [read_run(path).blend])
    (tmp_path / "run/config.toml").write_text(path.read_text())
    shutil.rmtree(tmp_path / "web")
    source = open_run(tmp_path / "run")

    assert select_step(source, 2) == [4, 5, 6, 7]
    with pytest.raises(ConfigError, match=r"steps are balanced, so ranks .* not available"):
        select_step(source, 2, ranks=Ranks(2, 2), rank=1)


def test_any_slot_can_be_explained(write_run: WriteRun) -> None:
    path = write_run(CORPORA)
    source, dataset = open_run(path), dataset_of(path)
    for sample in explain_slots(source, [10**12, 10**15 - 1]):
        assert tokens_of(source, sample)[:-1] == dataset[sample.window.slot].input_ids.tolist()
    with pytest.raises(ConfigError, match=r"slots -1 to 3, expected 0 to 10\^15 - 1"):
        explain_slots(source, [3, -1])


# Steps, ranks, samples and tokens


def explained(
    path: Path | str, capsys: pytest.CaptureFixture[str], *arguments: str
) -> list[dict[str, Any]]:
    assert main(["explain", str(path), "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)["samples"]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_explained_rows_of_a_rank_are_those_of_its_batches(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str], ranks: int
) -> None:
    """Step after step, micro batch after micro batch, as its loader gives them."""
    path = write_run(CORPORA)
    dataset = dataset_of(path)
    for rank in range(ranks):
        batches = iter(DataLoader(dataset, 2, dp_rank=rank, dp_world_size=ranks))
        for step in range(1, 4):
            rows = [row for _ in range(4 // ranks) for row in next(batches).input_ids.tolist()]
            options = ["--step", f"{step}", "--ranks", f"{ranks}", "--rank", f"{rank}"]
            samples = explained(path, capsys, *options)

            assert [dataset[s["slot"]].input_ids.tolist() for s in samples] == rows
            assert [(s["micro_batch"], s["row"]) for s in samples] == [
                (i // 2, i % 2) for i in range(8 // ranks)
            ]
            assert {(s["step"], s["rank"]) for s in samples} == {(step, rank)}
            assert explained(path, capsys, *options, "--sample", "1") == samples[1:2]


def test_steps_slots_and_tokens_choose_the_same_samples(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(CORPORA)
    both = explained(path, capsys, "--steps", "3-4")

    assert [sample["slot"] for sample in both] == [*range(16, 32)]
    assert both[8:] == explained(path, capsys, "--step", "4")
    assert both[3:4] == explained(path, capsys, "--slot", "19")
    for tokens in (19 * 8, 19 * 8 + 7):
        assert both[3:4] == explained(path, capsys, "--tokens", f"{tokens}")
    assert both[4:5] == explained(path, capsys, "--tokens", f"{20 * 8}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--step", "0"], "step is 0, expected at least 1"),
        (["--step", "1", "--rank", "0"], "rank is 0, expected --ranks with it"),
        (["--step", "1", "--rank", "2", "--ranks", "2"], "a rank from 0 to 1"),
        (["--step", "1", "--sample", "8"], "sample is 8, expected 0 to 7"),
        (
            ["--step", "1", "--ranks", "3"],
            "is 8, expected a multiple of 6 (",
        ),
        (["--slot", "1", "--sample", "0"], "expected --step with them"),
        (["--tokens", "-1"], "tokens is -1, expected a whole number of at least 0"),
    ],
)
def test_missing_steps_ranks_and_samples_are_refused(
    write_run: WriteRun,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    assert main(["explain", str(write_run(CORPORA)), *arguments]) == 1
    assert expected in capsys.readouterr().err


# Checkpoints


@pytest.fixture
def changed(write_run: WriteRun, tmp_path: Path) -> tuple[Path, list[list[int]]]:
    """A run that was changed three times, in a folder; and the tokens of each of its slots."""
    path = write_run(CORPORA)
    config = read_run(path).blend
    more = dataclasses.replace(
        config, segments=(SegmentConfig(first_slot=12, shares={"web": 0.9}),)
    )
    folder = tmp_path / "run"
    longer = dataclasses.replace(more, seq_length=12)
    rows = trained(folder / "checkpoint", [config, more, longer, config])
    (folder / "config.toml").write_text(path.read_text())
    return folder, rows


def trained(folder: Path, plans: list[BlendConfig], *, steps: int = 30) -> list[list[int]]:
    """Train a run of 4 samples per step: a row of tokens per slot, and a checkpoint per plan."""
    rows: list[list[int]] = []
    state = None
    for number, config in enumerate(plans, start=1):
        config = dataclasses.replace(config, on_change="new_segment")
        loader = DataLoader(build_datasets(config).train, 4, num_workers=0)
        if state is not None:
            loader.load_state_dict(state)
        slots = range(len(rows), len(rows) + 4 * steps)
        rows += [loader.dataset[slot].input_ids.tolist() for slot in slots]
        loader.consumed_samples = slots.stop
        state = loader.state_dict(more=saved_schedule((BatchStage(global_batch_size=4),)))
        save(folder, number * steps, state)
    return rows


def test_the_plan_of_a_changed_run_says_that_it_leaves_out_the_changes(
    changed: tuple[Path, list[list[int]]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = changed
    path = folder / "config.toml"
    more = 'on_change = "new_segment"\n[checkpoint]\nenable = true'
    path.write_text(f"{path.read_text()}\n{more}")

    def first_warning() -> str:
        assert main(["plan", str(folder), "--json"]) == 0
        return json.loads(capsys.readouterr().out)["warnings"][0]

    assert "read samples of another length than is configured now" in first_warning()
    for step in (60, 90, 120):
        shutil.rmtree(folder / f"checkpoint/step-{step}")
    assert "configured now" not in first_warning()


def test_the_past_of_a_changed_run_is_explained_from_its_checkpoint(
    changed: tuple[Path, list[list[int]]],
) -> None:
    """Other weights, longer windows, and back: epochs that were begun have several byte ranges."""
    folder, rows = changed
    source = open_run(folder)
    samples = explain_slots(source, range(len(rows)))
    for sample, row in zip(samples, rows, strict=True):
        assert tokens_of(source, sample)[:-1] == row
        check_places(source, sample)

    assert {sample.window.phase for sample in samples} == {0, 1, 2, 3}
    assert any(sample.window.of_remainder and len(sample.parts) > 1 for sample in samples)
    assert "step 120 after 480 samples" in source.about


def test_the_state_of_a_run_folder_is_in_its_outputs(
    changed: tuple[Path, list[list[int]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run folder is what users know; that init keeps checkpoints below outputs, they do not."""
    folder, _ = changed
    shutil.copytree(folder, tmp_path / "my-run/outputs")
    (tmp_path / "my-run" / DATA).touch()

    assert main(["explain", "--state", str(tmp_path / "my-run"), "--step", "9"]) == 0
    assert "step-120, at step 120" in capsys.readouterr().out


def test_tokens_may_be_written_in_powers_of_ten(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_run(CORPORA))
    assert main(["explain", path, "--tokens", "80", "--json"]) == 0
    expected = capsys.readouterr().out

    assert main(["explain", path, "--tokens", "8e1", "--json"]) == 0
    assert capsys.readouterr().out == expected
    with pytest.raises(SystemExit, match="2"):
        main(["explain", path, "--tokens", "0.5"])
    assert "found '0.5', expected a whole number such as 5000 or 5e9" in capsys.readouterr().err


def test_without_the_data_a_checkpoint_gives_shards_and_tokens(
    changed: tuple[Path, list[list[int]]],
) -> None:
    folder, _ = changed
    known = explain_slots(open_run(folder), range(480), with_texts=False)
    alone = explain_slots(open_run(None, folder), range(480))
    for one, other in zip(alone, known, strict=True):
        assert one.window == other.window
        assert one.place == other.place
        assert all(part.prefix is None for part in one.parts)


def test_missing_data_is_reported_and_the_rest_explained(
    changed: tuple[Path, list[list[int]]], tmp_path: Path
) -> None:
    folder, _ = changed
    (tmp_path / "web/web_0.bin").unlink()
    source = open_run(folder)

    assert "the data cannot be read: " in source.about
    assert explain_slots(source, [5])[0].parts[0].prefix is None


def test_a_replaced_shard_is_not_mistaken_for_the_old_one(
    changed: tuple[Path, list[list[int]]], write_shard: WriteShard
) -> None:
    folder, _ = changed
    write_shard("web/web_0", [[5, 6, EOD]] * 100)
    samples = explain_slots(open_run(folder), range(100))

    known = {part.stretch.key.name: part.prefix is not None for s in samples for part in s.parts}
    assert known == {"web_0": False, "web_1": True, "code_0": True, "books_0": True,
                     "books_2": True, "books_1": True}  # fmt: skip


def test_shards_of_one_name_and_size_are_distinguished(
    write_run: WriteRun, write_shard: WriteShard, tmp_path: Path
) -> None:
    """They are in different folders, and only their order distinguishes them."""
    path = write_run({"web": (1, [40])})
    for place in range(2):
        write_shard(f"{place}/part", [[3 + 5000 * place + 9 * i, EOD] for i in range(60)])
    (tmp_path / "web.txt").write_text("1 0/part web\n1 1/part web")
    source, dataset = open_run(path), dataset_of(path)
    samples = explain_slots(source, range(60))
    for sample in samples:
        assert sample.parts[0].prefix == dataset[sample.window.slot].shard
        check_places(source, sample)

    assert len({sample.parts[0].prefix for sample in samples}) == 2


def test_another_checkpoint_may_be_named(
    changed: tuple[Path, list[list[int]]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = changed
    state = ["--state", str(folder / "checkpoint/step-60")]

    assert main(["explain", str(folder), "--json", *state]) == 0
    segments = json.loads(capsys.readouterr().out)["segments"]
    assert [(s["first_slot"], s["first_step"], s["chapter"]) for s in segments] == [
        (0, 1, 0), (120, 31, 1)
    ]  # fmt: skip
    assert main(["explain", *state, "--step", "31"]) == 0
    out = capsys.readouterr().out
    assert "shards are known by name only" in out
    assert "slot 120: step 31, sample 0\n" in out


def test_a_damaged_checkpoint_is_skipped_for_an_intact_one(
    changed: tuple[Path, list[list[int]]],
) -> None:
    folder, _ = changed
    for step, file in ((60, "__0_0.distcp"), (120, ".metadata")):
        (folder / f"checkpoint/step-{step}" / file).write_bytes(b"cut")

    about = open_run(folder).about
    assert "at step 90 after 360 samples (skipped, because damaged: step-120)" in about


def test_checkpoints_without_a_loader_state_are_a_warning(
    changed: tuple[Path, list[list[int]]], caplog: pytest.LogCaptureFixture
) -> None:
    """As after a copy without hidden files: the run may have trained on other samples."""
    folder, _ = changed
    for metadata in folder.glob("checkpoint/*/.metadata"):
        metadata.unlink()

    assert "assuming that it was never changed" in open_run(folder).about
    assert "none of its checkpoints holds a loader state, so changes during the run" in caplog.text
    assert "step-30: no .metadata: the save was interrupted, or the copy is" in caplog.text


def test_the_segments_of_a_run_are_listed(
    changed: tuple[Path, list[list[int]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(changed[0])]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]

    assert lines[0].split() == ["from", "slot", "from", "step", "phase", "seq_length",
                                "books", "code", "web"]  # fmt: skip
    assert [line.split()[:4] for line in lines[1:]] == [
        ["0", "1", "0", "8"], ["120", "31", "1", "8"], ["240", "61", "2", "12"],
        ["360", "91", "3", "8"],
    ]  # fmt: skip


def test_a_checkpoint_without_a_state_is_refused(tmp_path: Path, write_run: WriteRun) -> None:
    save(tmp_path / "c", 5, {"weight": 1}, part="model")

    with pytest.raises(ConfigError, match="no checkpoint holds a loader state"):
        open_run(write_run(CORPORA), tmp_path / "c/step-5")
    with pytest.raises(ConfigError, match="nothing to explain"):
        open_run(None)


# The original's order


def test_the_originals_order_is_explained(write_run: WriteRun, tmp_path: Path) -> None:
    order = {"order": "blendcorpus", "data_cache_path": str(tmp_path / "cache")}
    path = write_run({"web": (2, [900, 700]), "code": (1, [450])}, blendcorpus=order)
    source, dataset = open_run(path), dataset_of(path)
    for sample in explain_slots(source, range(80)):
        expected = dataset[sample.window.slot]

        assert tokens_of(source, sample) == [*expected.input_ids.tolist(), expected.labels[-1]]
        assert (sample.window.draw, sample.window.epoch) == (expected.draw, expected.epoch)
        check_places(source, sample)
    with pytest.raises(ConfigError, match=r"slot 1,000 is requested, but order = \"blendcorpus\""):
        explain_slots(source, [1000])


# The command


def test_a_few_samples_are_shown_document_by_document(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(CORPORA)
    sample = explain_slots(open_run(path), [17])[0]
    assert main(["explain", str(path), "--slot", "17"]) == 0
    lines = capsys.readouterr().out.splitlines()
    part = sample.parts[0]
    assert part.byte_range is not None
    low, high = part.byte_range

    assert lines[0] == f"{path}, assuming that it was never changed:"
    assert lines[5] == "slot 17: step 3, sample 1"
    assert lines[7] == f"  {part.prefix}.bin: bytes {low:,} to {high:,}"
    assert lines[8].startswith(f"    document {part.documents[0].document_id}, tokens ")
    assert lines[8].endswith(json.dumps(part.texts[0]))


def test_many_samples_are_one_line_each(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(CORPORA, training={"global_batch_size": 16})

    assert main(["explain", str(path), "--step", "2", "--ranks", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:6] for line in lines[6:9]] == [
        [f"{16 + i}", "2", f"{i}", f"{i // 2 % 2}", f"{i // 4}", f"{i % 2}"] for i in range(3)
    ]
    assert main(["explain", str(path), "--step", "2", "--full"]) == 0
    assert capsys.readouterr().out.count("slot ") == 16


def test_a_range_of_steps_is_counted(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(CORPORA)
    dataset = dataset_of(path)

    assert main(["explain", str(path), "--steps", "2-40"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines[0].split() == ["step", "slots", "samples", "books", "code", "web"]
    for step, line in enumerate(lines[1:], start=2):
        counts = dataset.draws_before(step * 8) - dataset.draws_before(step * 8 - 8)
        assert line.split()[5:] == [f"{count}" for count in counts]


def test_long_texts_are_shortened_without_full(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run({"web": (1, [4000])}, training={"seq_len": 200})
    texts = {
        full: [
            document["text"]
            for sample in explained(path, capsys, "--slot", "3", *(["--full"] if full else []))
            for part in sample["parts"]
            for document in part["documents"]
        ]
        for full in (False, True)
    }

    assert sum(map(len, texts[True])) >= sum(map(len, texts[False]))
    assert max(map(len, texts[False])) <= 105


def test_neither_torch_nor_torchtitan_is_imported(write_run: WriteRun) -> None:
    """They take seconds."""
    path = write_run(CORPORA)
    code = (
        "import sys; from blendtitan.cli import main\n"
        f"assert main(['explain', {str(path)!r}, '--step', '3']) == 0\n"
        f"assert main(['plan', {str(path)!r}]) == 0\n"
        "assert not {'torch', 'torchtitan'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("order", ["blendtitan", "blendcorpus"])
def test_explain_names_the_bytes_of_the_tokens(
    write_run: WriteRun, tmp_path: Path, order: str
) -> None:
    """Those of a shard whose ``.bin`` begins with a header."""
    settings = {"order": order}
    if order == "blendcorpus":
        settings["data_cache_path"] = str(tmp_path / "cache")
    path = write_run({"web": (2, [900, 700]), "code": (1, [450])}, blendcorpus=settings)
    for idx_path in sorted(path.parent.glob("*/*.idx")):
        add_header(idx_path.with_suffix(""))

    source, dataset = open_run(path), dataset_of(path)
    for sample in explain_slots(source, range(40)):
        assert tokens_of(source, sample)[:-1] == dataset[sample.window.slot].input_ids.tolist()
        check_places(source, sample)

"""The audit: every checkpoint of a run proved against the one before, from states alone."""

import dataclasses
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import checkpoint as dcp

from blendtitan import BlendConfig, DataLoader, SegmentConfig, build_datasets
from blendtitan.batch_schedule import BatchStage, saved_schedule
from blendtitan.cli import main
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.runs.audit import Audited, audit_run, audit_table, check_proved, compare_runs
from blendtitan.runs.checkpoints import latest_state
from blendtitan.state import STATE_KEY
from blendtitan.tables import as_text
from tests.conftest import WriteBlend

CORPORA = {"web": (0.5, [900, 700]), "code": (0.5, [400])}
GLOBAL_BATCH_SIZE = 4


def save(folder: Path, step: int, state_dict: dict[str, Any], *, part: str = "dataloader") -> None:
    """Save a checkpoint as TorchTitan does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, that there is one process
        dcp.save({part: state_dict}, checkpoint_id=folder / f"step-{step}", no_dist=True)


def train(
    folder: Path, plans: list[BlendConfig], *, steps: int = 5, every: int = 2
) -> dict[int, dict[str, str]]:
    """A run that is resumed with each configuration in turn; the state of each step."""
    states: dict[int, dict[str, str]] = {}
    state, step = None, 0
    for config in plans:
        config = dataclasses.replace(config, on_change="new_segment")
        loader = DataLoader(build_datasets(config).train, GLOBAL_BATCH_SIZE)
        if state is not None:
            loader.load_state_dict(state)
        batches = iter(loader)
        for _ in range(steps):
            next(batches)
            step += 1
            schedule = (BatchStage(global_batch_size=GLOBAL_BATCH_SIZE),)
            states[step] = state = loader.state_dict(more=saved_schedule(schedule))
            if step % every == 0:
                save(folder, step, state)
    return states


@pytest.fixture
def plans(write_blend: WriteBlend) -> list[BlendConfig]:
    """A run that is changed twice: other shares, then longer windows."""
    config = write_blend(CORPORA, seq_length=8)
    more = dataclasses.replace(
        config, segments=(SegmentConfig(first_slot=12, shares={"web": 0.9}),)
    )
    return [config, more, dataclasses.replace(more, seq_length=12)]


def problems(run: list[Audited]) -> dict[int, str]:
    return {one.stored.step: "; ".join(one.problems) for one in run if one.problems}


def test_a_changed_and_resumed_run_is_proved(tmp_path: Path, plans: list[BlendConfig]) -> None:
    train(tmp_path / "run/checkpoint", plans)
    for folder in ("run", "run/checkpoint"):
        run = audit_run(tmp_path / folder)

        assert [one.stored.step for one in run] == [2, 4, 6, 8, 10, 12, 14]
        assert problems(run) == {}
        assert [len(one.state.phases) for one in run if one.state] == [1, 1, 2, 2, 2, 3, 3]


Edit = Callable[[dict[str, Any]], object]


def edited(state_dict: dict[str, str], edit: Edit) -> dict[str, str]:
    state = json.loads(state_dict[STATE_KEY])
    edit(state)
    return {STATE_KEY: json.dumps(state)}


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda s: s.update(consumed_samples=36), "other samples before sample 36"),
        (lambda s: s.update(digest="0"), "other samples before sample 32"),
        (lambda s: s.update(seed=8), "other samples before sample 32"),
        (lambda s: s.pop("chapters"), "damaged phases"),
        (lambda s: s["pace"][0].update(global_batch_size=5), "expected 40 at step 8; has another"),
    ],
)  # fmt: skip
def test_an_inconsistent_state_is_named(
    tmp_path: Path, plans: list[BlendConfig], edit: Edit, expected: str
) -> None:
    states = train(tmp_path, plans)
    save(tmp_path, 8, edited(states[8], edit))

    assert expected in problems(audit_run(tmp_path))[8]


def test_skipped_samples_are_noticed(tmp_path: Path, plans: list[BlendConfig]) -> None:
    """A state of the next step: it agrees with itself, but not with its own step."""
    states = train(tmp_path, plans)
    save(tmp_path, 8, states[9])

    assert problems(audit_run(tmp_path)) == {8: "consumed 36 samples, expected 32 at step 8"}


def test_another_run_in_between_is_noticed(tmp_path: Path, plans: list[BlendConfig]) -> None:
    train(tmp_path, plans)
    other = dataclasses.replace(plans[0], seed=8)
    save(tmp_path, 8, train(tmp_path / "other/x", [other], steps=8)[8])

    found = problems(audit_run(tmp_path / "."))
    assert found[8] == "has another seed than the previous checkpoint"
    assert found[10] == "has another seed than the previous checkpoint"


def test_another_history_is_noticed(tmp_path: Path, plans: list[BlendConfig]) -> None:
    """Step 8 of an unchanged run, among the checkpoints of a changed run."""
    train(tmp_path, plans)
    save(tmp_path, 8, train(tmp_path / "other/x", plans[:1], steps=8)[8])

    assert problems(audit_run(tmp_path)) == {
        8: "has another history than the previous checkpoint",
        10: "has another history than the previous checkpoint",
    }


def test_a_corpus_that_starts_over_is_noticed(tmp_path: Path, plans: list[BlendConfig]) -> None:
    """A phase that forgets the progress of a row gives a consistent state."""
    states = train(tmp_path, plans)
    for step in (12, 14):
        state = json.loads(states[step][STATE_KEY])
        state["chapters"][2]["corpora"]["code"]["read"] = [[]]
        text = rewritten(state)
        save(tmp_path, step, {STATE_KEY: text})

    assert problems(audit_run(tmp_path)) == {
        step: "the corpus 'code' does not continue from its position at slot 40"
        for step in (12, 14)
    }


def rewritten(state: dict[str, Any]) -> str:
    """A state with the digest of its phases, as a faulty loader would save it."""
    from blendtitan.history.phases import phases_from
    from blendtitan.state import digest_of, digest_slots, order_settings

    phase = phases_from(state["chapters"], blended=True)[-1]
    slots = digest_slots(phase.first_slot, state["consumed_samples"])
    ids = phase.order(order_settings(state)).places(slots).sample_ids
    return json.dumps(state | {"digest": digest_of(ids)})


# What cannot be proved


def test_checkpoints_without_a_state_are_listed(tmp_path: Path, plans: list[BlendConfig]) -> None:
    train(tmp_path, plans)
    (tmp_path / "step-9").mkdir()
    save(tmp_path, 15, {"weight": 1}, part="model")
    notes = {one.stored.step: one.stored.note for one in audit_run(tmp_path) if one.stored.note}

    assert notes == {
        9: "no .metadata: the save was interrupted, or the copy is incomplete",
        15: "holds no loader state",
    }


class Hostile:
    """An object that runs code when a pickle is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_no_code_of_a_checkpoint_ever_runs(tmp_path: Path, plans: list[BlendConfig]) -> None:
    train(tmp_path, plans)
    (tmp_path / "step-8/.metadata").write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))

    assert "step-8: cannot be read" in problems(audit_run(tmp_path))[8]
    assert not (tmp_path / "ran").exists()


def test_reading_a_hostile_checkpoint_takes_bounded_memory(
    tmp_path: Path, plans: list[BlendConfig]
) -> None:
    """Sixteen bytes that ask for a table of 2^32 entries; a byte can ask for an object as well."""
    train(tmp_path, plans)
    (tmp_path / "step-8/.metadata").write_bytes(b"\x80\x04]r\xff\xff\xff\xff.")

    found = problems(audit_run(tmp_path))[8]
    assert "needs more than 1,073,741,824 bytes of memory" in found


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_damaged_file_is_named(tmp_path: Path, plans: list[BlendConfig], name: str) -> None:
    train(tmp_path, plans)
    path = tmp_path / "step-8" / name
    path.write_bytes(path.read_bytes()[:-30])
    found = audit_run(tmp_path)

    assert "step-8: cannot be read" in problems(found)[8]
    assert [one.stored.step for one in found if one.state] == [2, 4, 6, 10, 12, 14]
    assert problems(found).keys() == {8}
    with pytest.raises(ResumeError, match=r"1 of 7 checkpoints are not proved: step 8 .*cannot be"):
        check_proved(found)


def test_the_latest_state_is_that_of_the_latest_checkpoint_that_can_be_read(
    tmp_path: Path, plans: list[BlendConfig]
) -> None:
    """Its files or its state may be damaged. If none can be read, each is named."""
    states = train(tmp_path, plans[:1])
    whole = latest_state(tmp_path)
    save(tmp_path, 6, edited(states[4], lambda state: state.pop("chapters")))
    save(tmp_path, 8, states[4])
    (tmp_path / "step-8/.metadata").write_bytes(b"")
    latest = latest_state(tmp_path)

    assert (whole.step, whole.note) == (4, "")
    assert (latest.step, latest.state_dict) == (4, whole.state_dict)
    assert latest.note == "skipped, because damaged: step-6, step-8"
    with pytest.raises(ResumeError, match="step-8: cannot be read"):
        latest_state(tmp_path / "step-8")
    for step in (2, 4):
        (tmp_path / f"step-{step}/.metadata").write_bytes(b"")
    with pytest.raises(ResumeError, match=r"(?s)step-8: cannot .*step-6: .*step-2: cannot"):
        latest_state(tmp_path)


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no checkpoints"):
        audit_run(tmp_path)
    with pytest.raises(ConfigError, match="nosuch: there is no such folder"):
        audit_run(tmp_path / "nosuch")


# Two runs


def test_runs_that_read_the_same_samples_are_reported(
    tmp_path: Path, plans: list[BlendConfig]
) -> None:
    """Even if one trained longer."""
    train(tmp_path / "a", plans)
    train(tmp_path / "b", plans[:2])

    parting = compare_runs(audit_run(tmp_path / "a"), audit_run(tmp_path / "b"))
    assert (parting.slot, parting.reasons) == (None, ())


def test_the_slot_at_which_runs_part_is_reported(tmp_path: Path, plans: list[BlendConfig]) -> None:
    config = plans[0]
    other = dataclasses.replace(
        config, segments=(SegmentConfig(first_slot=12, shares={"web": 0.9}),)
    )
    runs = {"a": [config], "b": [other], "c": [dataclasses.replace(config, seed=8)]}
    for name, plan in runs.items():
        train(tmp_path / name, plan)
    audited = {name: audit_run(tmp_path / name) for name in runs}

    parting = compare_runs(audited["a"], audited["b"])
    assert parting.slot == 12
    assert parting.reasons[0].startswith("shares: {'code': 0.5, 'web': 0.5}, {")
    assert next(parting.lines()) == (
        "The runs read the same samples before slot 12, and then others. They differ in (this run, "
        "the other):"
    )
    parting = compare_runs(audited["a"], audited["c"])
    assert parting.slot == 0
    assert [*parting.lines()] == [
        "The runs read different samples from the start. They differ in (this run, the other):",
        "  seed: 7, 8",
    ]


# The command


def test_the_command_prints_a_line_for_each_checkpoint(
    tmp_path: Path, plans: list[BlendConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "a", plans[:1])
    train(tmp_path / "b", plans)

    assert main(["audit", str(tmp_path / "a"), "--against", str(tmp_path / "b")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [["2", "8", "1"], ["4", "16", "1"]]
    assert all(line.endswith("proved") for line in lines[1:3])
    assert lines[3] == "Both runs read the same samples, as far as both have trained."


def test_the_command_fails_if_a_checkpoint_is_not_proved(
    tmp_path: Path, plans: list[BlendConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    states = train(tmp_path, plans)
    save(tmp_path, 8, states[9])

    assert main(["audit", str(tmp_path), "--json"]) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)["checkpoints"]
    assert {one["step"]: one["problems"] for one in found if one["problems"]} == {
        8: ["consumed 36 samples, expected 32 at step 8"]
    }
    assert "1 of 7 checkpoints are not proved: step 8 consumed 36" in captured.err


def test_skipped_slots_are_proved(tmp_path: Path, write_blend: WriteBlend) -> None:
    """A skip that appears or disappears between checkpoints, or of another step, is named."""
    train_split = build_datasets(write_blend(CORPORA, seq_length=8)).train
    size = GLOBAL_BATCH_SIZE
    jump = BatchStage(step=2, consumed_samples=14, global_batch_size=size)
    schedule = (BatchStage(global_batch_size=size), jump)
    saved: dict[str, dict[int, dict[str, str]]] = {}
    for name, skips in {"plain": [], "skipping": [(8, 14)], "other": [(7, 13)]}.items():
        loader = DataLoader(train_split, size)
        loader.set_skips(skips)
        batches = iter(loader)
        for step in range(1, 5):
            next(batches)
            begun = schedule[: 1 + (step >= 2 and name == "skipping")]
            saved.setdefault(name, {})[step] = loader.state_dict(more=saved_schedule(begun))

    def audited(**names: str) -> dict[int, str]:
        for step, name in enumerate(names.values(), start=1):
            save(tmp_path, step, saved[name][step])
        return problems(audit_run(tmp_path))

    assert audited(a="plain", b="skipping", c="skipping", d="skipping") == {}
    assert "skipped slots" in str(as_text(audit_table(audit_run(tmp_path))))
    assert "skips other slots before slot 14" in audited(a="plain", b="skipping", c="other")[3]
    found = audited(a="plain", b="other")[2]
    assert found == "consumed 14 samples, expected 8 at step 2"

"""Damage to checkpoints that is noticed before anything is loaded."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from blendtitan import checkpoints
from blendtitan.checkpoints import Contents, damage_to
from blendtitan.state import STATE_KEY
from tests.checkpoints.saved import save, zero

STATE = f"dataloader.{STATE_KEY}"


def damage_seen(path: Path, step: int | None = 4) -> str | None:
    return damage_to(path, step=step, values=[STATE])


def test_a_whole_checkpoint_shows_no_damage(tmp_path: Path) -> None:
    assert damage_seen(save(tmp_path, 4)) is None


def end_of_state(path: Path) -> None:
    item = next(item for item in Contents.read(path).items if item.name == STATE)
    zero(path / item.file, item.offset + item.length - 22, item.offset + item.length)


def middle_of_state(path: Path) -> None:
    item = next(item for item in Contents.read(path).items if item.name == STATE)
    zero(path / item.file, item.offset + 60, item.offset + item.length - 60)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "tensors_cut": (lambda p: os.truncate(p / "__0_0.distcp", 90), r"__0_0\.distcp: found 90 by"),
    "tensors_empty": (lambda p: os.truncate(p / "__0_0.distcp", 0), r"distcp: found 0 bytes, exp"),
    "tensors_zero": (lambda p: zero(p / "__0_0.distcp"), r"distcp: found .* never reached the dis"),
    "tensors_gone": (lambda p: (p / "__0_0.distcp").unlink(), r"__0_0\.distcp: is missing"),
    "item_zero": (end_of_state, r"distcp: found .* 'dataloader.blendtitan', bytes .* overwritten"),
    "value_zero": (middle_of_state, r"distcp: 'dataloader.blendtitan', .* cannot be parsed"),
    "metadata_cut": (lambda p: os.truncate(p / ".metadata", 300), r"\.metadata cannot be parsed"),
    "metadata_empty": (lambda p: os.truncate(p / ".metadata", 0), r"\.metadata is empty"),
    "metadata_zero": (lambda p: zero(p / ".metadata"), r"\.metadata holds .* zero bytes"),
    "metadata_hole": (lambda p: zero(p / ".metadata", 200, 400), r"\.metadata cannot be parsed"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_reported_with_the_file(tmp_path: Path, name: str) -> None:
    do_damage, expected = DAMAGES[name]
    path = save(tmp_path, 4)
    do_damage(path)
    found = damage_seen(path)

    assert found is not None
    assert re.search(expected, found)
    assert str(path) in found


def test_a_folder_renamed_to_another_step_is_noticed(tmp_path: Path) -> None:
    """Training would go back to step 4 and later overwrite the checkpoint of step 9."""
    path = save(tmp_path, 4).rename(tmp_path / "step-9")

    assert damage_seen(path, 9) == (
        f"{path}: holds the state after step 4, but its name says step 9. The folder was renamed: "
        f"rename it back to step-4."
    )
    assert damage_seen(path, None) is None  # as `initial_load_path`, whatever its name


def test_a_model_alone_is_nothing_to_resume_from(tmp_path: Path) -> None:
    path = save(tmp_path, 4, train_state={})

    assert "holds only a model, no training state" in str(damage_seen(path))


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    path = save(tmp_path, 4)
    (path / "__0_0.distcp").unlink()
    os.mkfifo(path / "__0_0.distcp")

    assert "__0_0.distcp: is missing, or is not a file" in str(damage_seen(path))


def test_of_many_items_some_of_each_file_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand files with millions of tensors must not be read item by item."""
    path = save(tmp_path, 4, more={str(i): i for i in range(100)})
    reads: list[int] = []

    def pread(file: int, count: int, at: int) -> bytes:
        reads.append(at)
        return read(file, count, at)

    read = os.pread
    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(checkpoints, "_MOST_PLACES", 10)

    assert damage_seen(path) is None
    assert len(reads) == 20

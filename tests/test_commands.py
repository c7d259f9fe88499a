"""The two commands of the README, as a new user starts them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_run_train_prepares_the_demo_and_trains_on_it(tmp_path: Path) -> None:
    """Arguments win over the file; the summary at the end shows that the losses fell."""
    command = ["./run_train.sh", "--training.steps", "12", "--job.dump_folder", str(tmp_path)]
    command += ["--training.global_batch_size", "2", "--validation.samples", "4"]  # in less time
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    summary = re.findall(
        r"(training|validation) loss: ([\d.]+) at step 1, ([\d.]+) at step 1[02]", done.stdout
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert {kind for kind, _, _ in summary} == {"training", "validation"}
    assert all(float(last) < float(first) - 0.5 for _, first, last in summary)
    assert (tmp_path / "checkpoint/step-12/.metadata").exists()
    assert list(tmp_path.glob("tb/*/events.*"))


@pytest.mark.parametrize(
    "script",
    ["run_train.sh", "run_tests.sh", "scripts/set_up", "scripts/set_up_titan02", ".ci/run"],
)
def test_scripts_are_executable_and_parse(script: str) -> None:
    path = ROOT / script

    assert path.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


FAKE_PYTHON = """#!/usr/bin/env bash
if [ "$1" = -c ]; then exit $CANNOT_TRAIN; fi
printf '%s\\n' "$@"
"""


@pytest.mark.parametrize("name", ["VENV", "PYTHON"])
def test_run_train_uses_an_existing_environment_as_it_is(tmp_path: Path, name: str) -> None:
    """Of conda, or of an image: nothing is installed, and no .venv is made."""
    clone = clone_of_scripts(tmp_path)
    python = fake_python(tmp_path)
    given = {"VENV": python.parents[1], "PYTHON": python}[name]
    (clone / "mine.toml").touch()
    run = {"CONFIG_FILE": "mine.toml", "NGPU": "2", "CANNOT_TRAIN": "0", name: str(given)}
    done = subprocess.run(
        ["./run_train.sh", "--training.steps", "3"],
        cwd=clone,
        env=os.environ | run,
        capture_output=True,
        text=True,
        check=True,
    )

    words = ["-m", "blendtitan", "train", str(clone / "mine.toml"), "--nproc", "2"]
    assert done.stdout.split() == [*words, "--training.steps", "3"]
    assert not (clone / ".venv").exists()


def test_run_train_says_what_an_existing_environment_lacks(tmp_path: Path) -> None:
    clone, python = clone_of_scripts(tmp_path), fake_python(tmp_path)
    done = subprocess.run(
        ["./run_train.sh"],
        cwd=clone,
        env=os.environ | {"VENV": str(python.parents[1]), "CANNOT_TRAIN": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert f"Install them: {python} -m pip install -e '.[train]'" in done.stderr
    assert not (clone / ".venv").exists()


def clone_of_scripts(folder: Path) -> Path:
    clone = folder / "clone"
    clone.mkdir()
    shutil.copy(ROOT / "run_train.sh", clone)
    return clone


def fake_python(folder: Path) -> Path:
    """An interpreter that prints its arguments."""
    python = folder / "env/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    return python

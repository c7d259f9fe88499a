"""The two commands of the README, as a new user starts them."""

import re
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


@pytest.mark.parametrize("script", ["run_train.sh", "run_tests.sh", "scripts/set_up", ".ci/run"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    path = ROOT / script

    assert path.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0

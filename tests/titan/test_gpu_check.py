"""``scripts/gpu_check``, in the form in which a machine without an accelerator can run it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blendtitan.titan import cpu
from tests.small_corpora import write_corpora

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/gpu_check.py"


@pytest.fixture
def data(tmp_path: Path, tokenizer_path: Path) -> Path:
    """A folder as ``blendtitan demo`` makes it, only smaller."""
    write_corpora(tmp_path)
    shutil.copytree(tokenizer_path.parent, tmp_path / "tokenizer")
    for corpus in ("code", "web"):
        (tmp_path / "text" / corpus).mkdir(parents=True)
        documents = [json.dumps({"text": f"{corpus} {number} " * 20}) for number in range(200)]
        (tmp_path / "text" / corpus / "0.jsonl").write_text("\n".join(documents))
    return tmp_path


def check(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_the_report_has_a_row_for_every_case(data: Path) -> None:
    """On a CPU there is no intra-document masking; everything else is as on an accelerator."""
    sizes = ["--seq-len", "32", "--steps", "1", "--rounds", "1"]
    done = check("--device", "cpu", "--data", data, "--output", data / "report.md", *sizes)
    assert done.returncode == 0, done.stdout + done.stderr

    report = (data / "report.md").read_text()
    milliseconds, share = r"[\d.]+ \([\d.]+ to [\d.]+\)", r"[\d.]+% \([\d.]+% to [\d.]+%\)"
    losses = r"[\d.]+, [\d.]+"
    rows = re.findall(
        rf"^\| (.*) \| {milliseconds} \| {share} \| [\d,]+ \| {losses} \|$", report, re.MULTILINE
    )
    assert rows == [
        "blend, rows as one document",
        "blend, rows as one document, without losses per corpus",
        "TorchTitan's loader",
        "TorchTitan's loader, 2 worker processes",
    ]
    assert "scripts/gpu_check --device cpu" in report
    assert "loss of each corpus" in done.stdout + done.stderr


def test_a_folder_without_the_demo_is_refused(tmp_path: Path) -> None:
    done = check("--data", tmp_path)

    assert done.returncode == 2
    assert f"{tmp_path / 'file_list.txt'} is missing: blendtitan demo --output" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not cpu.is_used(), reason="there is an accelerator")
def test_without_an_accelerator_the_error_names_the_trial_option(data: Path) -> None:
    done = check("--data", data)

    assert done.returncode == 1
    assert "No accelerator was found. A trial run on the CPU: --device cpu" in done.stderr


def test_the_command_is_executable_and_parses() -> None:
    command = ROOT / "scripts/gpu_check"

    assert command.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", command], check=False).returncode == 0

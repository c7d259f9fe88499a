"""``scripts/gpu_check``, in the form in which a machine without an accelerator can run it."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blendtitan.titan import cpu
from tests.small_corpora import write_corpora
from tests.titan.conftest import TIMEOUT_S
from tests.titan.launched import Launched, script

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


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, data: Path) -> Callable[..., str]:
    """Run the script; what the processes that it starts printed. They find everything imported."""
    outputs: list[str] = []

    def start(command: list[str], *, env: dict[str, str], **_: object) -> None:
        place = data / f"record_{len(outputs)}"
        run = Launched.start_rank(command[1:], environment=env, record=place, entry=script)
        assert run.wait(TIMEOUT_S) == 0, run.output[-5000:]
        outputs.append(run.output)

    def check(*arguments: str | Path) -> str:
        monkeypatch.setattr(subprocess, "run", start)
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return "".join(outputs)

    return check


@pytest.mark.slow
def test_the_report_has_a_row_for_every_case(data: Path, check: Callable[..., str]) -> None:
    """On a CPU there is no intra-document masking; everything else is as on an accelerator."""
    sizes = ["--seq-len", "32", "--steps", "1", "--rounds", "1"]
    output = check("--device", "cpu", "--data", data, "--output", data / "report.md", *sizes)

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
    assert "loss of each corpus" in output


def test_a_folder_without_the_demo_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert f"{tmp_path / 'file_list.txt'} is missing: blendtitan demo --output" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not cpu.is_used(), reason="there is an accelerator")
def test_without_an_accelerator_the_error_names_the_trial_option(
    data: Path, check: Callable[..., str]
) -> None:
    with pytest.raises(SystemExit, match=r"No accelerator was found\. A trial run .* --device cpu"):
        check("--data", data)


def test_the_command_is_executable_and_parses() -> None:
    command = ROOT / "scripts/gpu_check"

    assert command.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", command], check=False).returncode == 0

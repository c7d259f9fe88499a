"""How a process ends with an error: a few lines, and the traceback in a file."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import blendtitan
from blendtitan import cli
from blendtitan.errors import ConfigError, ShardError
from blendtitan.failures import MAX_LINES, recorded, report


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def file_of(lines: list[str]) -> Path:
    return Path(lines[-1].removeprefix("Traceback: "))


def test_a_report_has_the_message_and_a_file_with_the_traceback(tmp_path: Path) -> None:
    lines = report(raised(ConfigError("a.toml: wrong")), "blendtitan train", tmp_path)

    assert lines[:-1] == ["blendtitan train: a.toml: wrong"]
    text = file_of(lines).read_text()
    assert "Traceback (most recent call last)" in text
    assert text.endswith("ConfigError: a.toml: wrong\n")
    file_of(lines).unlink()


def test_an_unforeseen_error_is_named_by_type_and_kept_with_the_run(tmp_path: Path) -> None:
    lines = report(raised(KeyError("x")), "blendtitan train", tmp_path)

    assert lines[0] == "blendtitan train: KeyError: 'x'"
    assert file_of(lines).parent == tmp_path / "errors"


def test_a_refused_start_writes_nothing_into_the_run(tmp_path: Path) -> None:
    file_of(report(raised(ConfigError("wrong")), "blendtitan train", tmp_path)).unlink()

    assert not list(tmp_path.iterdir())


def test_of_many_lines_the_first_and_the_last_are_shown(tmp_path: Path) -> None:
    """The last is the summary, with the remedy."""
    error = ShardError(*(f"shard {n} is damaged" for n in range(30)), "copy them again")
    lines = report(raised(error), "blendtitan train", None)
    text = file_of(lines).read_text()
    file_of(lines).unlink()

    assert len(lines) == MAX_LINES
    assert lines[:2] == ["blendtitan train: shard 0 is damaged", "shard 1 is damaged"]
    assert lines[2:4] == ["  ... 28 more lines, see the file below", "copy them again"]
    assert "shard 29 is damaged" in text


def test_long_errors_of_other_packages_are_cut(tmp_path: Path) -> None:
    text = "\n\n".join(["CUDA error", "x" * 9999, "frame #0", "frame #1", "frame #2"])
    lines = report(raised(RuntimeError(text)), "blendtitan train", tmp_path)

    assert len(lines) == MAX_LINES
    assert lines[0] == "blendtitan train: RuntimeError: CUDA error"
    assert all(len(line) < 420 for line in lines[:-1])


def test_a_note_is_shown_with_its_error(tmp_path: Path) -> None:
    error = raised(RuntimeError("\n".join(f"size mismatch {n}" for n in range(9))))
    error.add_note("Set model.vocab_size.")

    assert report(error, "blendtitan train", tmp_path)[-2] == "Set model.vocab_size."


def test_with_several_ranks_an_unforeseen_error_names_its_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    first, _ = report(raised(OSError("disk")), "blendtitan train", tmp_path)

    assert first == "blendtitan train: rank 3: OSError: disk"


def test_without_a_place_to_write_the_traceback_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    lines = report(raised(ConfigError("wrong")), "blendtitan train", None)

    assert lines[0] == "blendtitan train: wrong"
    assert "it cannot be written into a file" in lines[1]
    assert "Traceback (most recent call last)" in capsys.readouterr().err


SOURCE = Path(blendtitan.__file__).parents[1]

END_A_RANK = """
from blendtitan.failures import end, record
try:
    raise KeyError("x")
except KeyError as error:
    record(error)
    record(ValueError("a consequence"))
    end()
"""


@pytest.mark.parametrize("has_agent", [True, False])
def test_the_first_error_of_a_rank_is_printed_once_by_it_or_by_torchrun(
    tmp_path: Path, has_agent: bool
) -> None:
    agent = {"TORCHELASTIC_ERROR_FILE": str(tmp_path / "error.json")} if has_agent else {}
    environment = os.environ | agent | {"TMPDIR": str(tmp_path)}
    words = [sys.executable, "-c", END_A_RANK]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    lines = recorded(tmp_path / "error.json") if has_agent else done.stderr.splitlines()

    assert done.returncode == 1
    assert (done.stderr == "") is has_agent
    assert lines[0] == "blendtitan train: KeyError: 'x'"
    assert len(lines) == 2


@pytest.mark.parametrize("rank", ["0", "1"])
def test_ctrl_c_during_the_imports_is_one_line_of_rank_0(tmp_path: Path, rank: str) -> None:
    """They take seconds, and an interrupted import is a page of traceback."""
    interrupts = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)"
    (tmp_path / "torch.py").write_text(interrupts)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{SOURCE}", "RANK": rank}
    words = [sys.executable, "-m", "blendtitan.titan.train"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 130
    assert done.stderr == ("Interrupted before training began.\n" if rank == "0" else "")


def test_what_torchrun_reads_from_another_program_is_shown_as_well(tmp_path: Path) -> None:
    path = tmp_path / "error.json"
    message = {"message": "ValueError: a", "extraInfo": {"py_callstack": "...", "timestamp": 1}}
    for text in (message, "ValueError: a"):
        path.write_text(json.dumps({"message": text}))
        assert recorded(path) == ["ValueError: a"]


def test_an_error_of_a_command_itself_is_a_few_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(cli.COMMANDS, "demo", replace(cli.COMMANDS["demo"], run=fails))
    assert cli.main(["demo", "--output", str(tmp_path / "out")]) == 1
    first, last = capsys.readouterr().err.splitlines()

    assert first == "blendtitan demo: internal error, please report it: KeyError: 'x'"
    assert file_of(["", last]).parent == tmp_path

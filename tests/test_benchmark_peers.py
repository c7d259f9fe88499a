"""``benchmarks/peers`` runs without peers on small data, and reports what its raw results say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/peers"

ABOUT = {
    "at": "2026-11-25 02:00 UTC",
    "machine": "a machine",
    "versions": {"blendtitan": "1.2.3"},
    "sources": {"many": {"shards": 2419, "holds": "2,419 shards"}},
}


def run(folder: Path, *sections: str) -> str:
    """Run the sections in ``folder``; the report."""
    report = folder / "report.md"
    command = [sys.executable, SCRIPT, "--quick", "--rounds", "1", "--work", folder / "work"]
    done = subprocess.run(
        [*command, "--report", report, "--sections", *sections], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return report.read_text()


def result(use: str, round_id: int, **fields: Any) -> dict[str, Any]:
    """A raw result of an engine, ``"limit two"`` for the variant ``two``."""
    engine, _, variant = use.partition(" ")
    asked = {"source": "many", "batch": 8, "seq_len": 4096, "first_sample": 0, "cold": False}
    return {"round": round_id, "engine": engine, "variant": variant, **asked, **fields}


def write_raw(folder: Path, section: str, results: list[dict[str, Any]]) -> None:
    rows = [{"section": section, "about": ABOUT}]
    rows += [{"section": section, **found} for found in results]
    (folder / "report.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.slow
@pytest.mark.long
def test_ours_and_the_limits_are_measured_on_small_data(tmp_path: Path) -> None:
    report = run(tmp_path, "reading", "files")

    raw = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert {row["engine"] for row in raw if "engine" in row} == {"limit", "ours"}
    assert not [row for row in raw if "error" in row]
    assert "| **blendtitan** | 256 | starts |" in report


def test_ratios_are_medians_of_those_of_equal_rounds(tmp_path: Path) -> None:
    """A machine that is slow for a while is slow for all: medians of speeds would mix rounds."""
    limits, speeds = (100e6, 200e6, 900e6), (90e6, 100e6, 810e6)
    found = [
        result(use, round_id, tokens_per_s=speed)
        for use, values in {"limit two": limits, "ours": speeds}.items()
        for round_id, speed in enumerate(values)
    ]
    write_raw(tmp_path, "reading", found)

    report = run(tmp_path)

    assert "| **blendtitan** | 100 | 90 | 810 | 0.9 |" in report
    assert "| reading `many`, 8 x 4096, of the limit | 0.9 | at least 0.8 | met |" in report


def test_an_engine_that_fails_is_in_the_report(tmp_path: Path) -> None:
    ours = [result("ours", 0, max_files=256), result("ours", 0, max_files=4096)]
    failed = result("megatron", 0, max_files=256, error="OSError: Too many open files")
    write_raw(tmp_path, "files", [*ours, failed])

    report = run(tmp_path)

    assert "| **blendtitan** | 256 | starts |" in report
    assert "| megatron-core | 256 | fails: `OSError: Too many open files` |" in report


def test_a_missed_target_is_reported_as_missed(tmp_path: Path) -> None:
    found = [
        result(use, 0, start_s=seconds, memory_mib=9.0, anonymous_mib=1.0, files=8, maps=0)
        for use, seconds in {"floor": 0.02, "ours": 0.2, "ours kept": 0.03}.items()
    ]
    write_raw(tmp_path, "startup", found)

    report = run(tmp_path)

    assert "catalog built, of 4 x floor + 20 ms | 2 | at most 1 | **not met** |" in report
    assert "catalog kept, ms | 30 | at most 44.2 | met |" in report
    assert "| memory above imports, ours, MiB | 9 | at most 8 | **not met** |" in report


def test_the_readme_shows_the_numbers_of_the_report() -> None:
    root = SCRIPT.parents[1]
    shown = (root / "README.md").read_text().partition("\n## Measured\n")[2].partition("\n## ")[0]
    report = max(root.glob("benchmarks/peers_*.md")).read_text()
    rows = [line for line in shown.splitlines() if line.startswith("|")]

    assert len(rows) > 5
    assert [row for row in rows if row not in report.splitlines()] == []

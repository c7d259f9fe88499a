"""Raw results in a file of JSON lines: one that tells about each section, then its results."""

import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sources import Source

Results = dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]
"""Section to what is told about it and its results."""


def about(sources: Iterable[Source], own: str, versions: dict[str, str]) -> dict[str, Any]:
    """Data, hardware and versions of a measurement."""
    hardware = f"{_processor()}, {os.cpu_count()} cores, {_memory():.0f} GiB"
    return {
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{platform.platform()}, {hardware}",
        "sources": {
            source.name: {"shards": source.num_shards, "holds": source.holds} for source in sources
        },
        "versions": {"blendtitan": own, "python": platform.python_version()} | versions,
    }


def read(path: Path) -> Results:
    found: Results = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if "about" in row:
            found[row["section"]] = (row["about"], [])
        else:
            found[row["section"]][1].append(row)
    return found


def replace(
    path: Path, section: str, told: dict[str, Any], found: Sequence[dict[str, Any]]
) -> None:
    """Put the results of a section in the place of those that the file has."""
    kept = read(path) if path.exists() else {}
    kept[section] = (told, list(found))
    lines = []
    for name, (text, rows) in kept.items():
        lines.append(json.dumps({"section": name, "about": text}))
        lines += [json.dumps(_rounded(row)) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def summary(result: dict[str, Any]) -> str:
    """A line for the terminal."""
    words = [f"{name}={value}" for name, value in _rounded(result).items() if value]
    return " ".join(words)


def _rounded(result: dict[str, Any]) -> dict[str, Any]:
    return {
        name: float(f"{value:.5g}") if isinstance(value, float) else value
        for name, value in result.items()
    }


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30

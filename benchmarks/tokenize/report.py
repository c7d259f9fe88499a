"""The measurements as a Markdown page."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from commands import Command
from installs import versions
from measure import Measurement
from real_text import Text

OURS = ("blendtitan", "sentencepiece", "tokenizers", "gigatoken", "numpy", "orjson")
PEER = ("datatrove", "tokenizers", "numpy", "orjson")

Runs = Mapping[Command, Sequence[Measurement]]

SPEED_TARGETS = (
    ("fast", "sp", 40.0),
    ("fast", "bpe", 70.0),
    ("reference", "sp", 8.0),
    ("reference", "bpe", 2.8),
)
"""Tier, tokenizer, and MB/s of two workers on all of the text."""


def report(
    measurements: Sequence[Measurement], text: Text, pythons: Mapping[str, Path], *, num_cores: int
) -> str:
    """A page with the speeds, what they are compared with, and how to repeat them."""
    runs: dict[Command, list[Measurement]] = {}
    for measurement in measurements:
        runs.setdefault(measurement.command, []).append(measurement)
    lines = [
        f"# Tokenising on {num_cores} cores, {datetime.now(UTC):%B %Y}",
        "",
        f"{text.num_bytes / 1e6:,.0f} MB of text in {text.num_documents:,} documents, sources and "
        f"documentation that are installed on the machine, each file once and then repeated "
        f"{text.num_repeats - 1} times. Speeds are in MB (10^6 bytes) of text per second, from the "
        f"start of the command to its end; libraries alone are timed on one core without start-up "
        f"and reading. Memory is that of all processes together, pages that they share counted "
        f"once. `sp` is the SentencePiece model of 32,000 pieces of mistral-common, `bpe` its "
        f"byte-level BPE vocabulary Tekken of 130,072 tokens as a `tokenizer.json`.",
        "",
        "Made by `python benchmarks/tokenize`.",
        "",
        "## Speed and memory",
        "",
        "| | tokenizer | workers | MB/s median | minimum | maximum | peak MB | tokens |",
        "|---|---|---|---|---|---|---|---|",
        *(_speed_row(command, found) for command, found in runs.items()),
        "",
        *_ratios(runs),
        "",
        "Equal digests in the column *tokens* mean equal bytes in the `.bin` files.",
        "",
        "## Targets",
        "",
        "| | tokenizer | measured | target | |",
        "|---|---|---|---|---|",
        *_target_rows(runs, text),
        "",
        "## Raw seconds",
        "",
        "| | tokenizer | workers | seconds |",
        "|---|---|---|---|",
        *(_seconds_row(command, found) for command, found in runs.items()),
        "",
        "## Versions",
        "",
        f"- {platform.platform()}, {_processor()}, {os.cpu_count()} cores, "
        f"{num_cores} used; Python {platform.python_version()}",
        f"- ours: {_spelled(versions(pythons['ours'], OURS))}",
        f"- peer: {_spelled(versions(pythons['peer'], PEER))}",
        "",
        "## Commands",
        "",
        "```bash",
        *(" ".join(command.line).replace(f"{Path.cwd()}/", "") for command in runs),
        "```",
        "",
    ]
    return "\n".join(lines)


def _speeds(found: Iterable[Measurement]) -> list[float]:
    return [measurement.megabytes_per_second for measurement in found]


def _speed_row(command: Command, found: Sequence[Measurement]) -> str:
    speeds = _speeds(found)
    peak = max(measurement.peak_bytes for measurement in found) / 1e6
    digests = ", ".join(dict.fromkeys(measurement.digest for measurement in found))
    values = [median(speeds), min(speeds), max(speeds)]
    numbers = " | ".join(f"{value:.1f}" for value in values)
    memory = "" if command.own_clock else f"{peak:,.0f}"
    return (
        f"| {command.name} | {command.tokenizer} | {command.workers} | {numbers} | {memory} "
        f"| {digests} |"
    )


def _seconds_row(command: Command, found: Sequence[Measurement]) -> str:
    seconds = ", ".join(f"{measurement.seconds:.2f}" for measurement in found)
    return f"| {command.name} | {command.tokenizer} | {command.workers} | {seconds} |"


def _ratios(runs: Runs) -> list[str]:
    speeds = _median_speeds(runs)
    lines = []
    for tokenizer, library in (("sp", "sentencepiece"), ("bpe", "tokenizers")):
        for tier, limit in (("reference", library), ("fast", "gigatoken")):
            one = speeds[f"ours, {tier}", tokenizer, 1]
            alone = speeds[f"{limit} alone", tokenizer, 1]
            lines.append(
                f"- {tokenizer}, {tier}: one worker, start-up and reading included, is "
                f"{one / alone:.2f} of {limit} alone"
            )
        ours, alone = (
            speeds[name, tokenizer, 2] / speeds[name, tokenizer, 1]
            for name in ("ours on 5x the text, fast", "gigatoken alone")
        )
        lines.append(
            f"- {tokenizer}, 5x the text: 2 workers are {ours:.2f}x one; two processes of "
            f"gigatoken alone, each with all of the text, are {alone:.2f}x one"
        )
    for tier in ("reference", "fast"):
        peer = max(speeds["datatrove", "bpe", workers] for workers in (1, 2))
        ratio = speeds[f"ours, {tier}", "bpe", 2] / peer
        lines.append(f"- bpe, {tier}: {ratio:.1f}x datatrove at its better number of workers")
    return lines


def _target_rows(runs: Runs, text: Text) -> list[str]:
    speeds = _median_speeds(runs)
    rows = []
    for tier, tokenizer, target in SPEED_TARGETS:
        found = speeds[f"ours, {tier}", tokenizer, 2]
        rows.append(_target_row(f"{tier} tier, MB/s", tokenizer, found, target, found >= target))
    most = 300 + 8 * text.num_documents / 1e6
    for tokenizer in ("sp", "bpe"):
        name = "ours on 5x the text, fast"
        ratio = speeds[name, tokenizer, 2] / speeds[name, tokenizer, 1]
        rows.append(
            _target_row("1 to 2 workers on 5x the text", tokenizer, ratio, 1.85, ratio >= 1.85)
        )
        peak = _peak(runs, "ours, fast", tokenizer, 2)
        rows.append(_target_row("peak MB, fast tier", tokenizer, peak, most, peak <= most))
        (seconds,) = (
            median(measurement.seconds for measurement in found)
            for command, found in runs.items()
            if (command.name, command.tokenizer) == ("ours on one document, fast", tokenizer)
        )
        rows.append(_target_row("start-up, seconds", tokenizer, seconds, 1, seconds <= 1))
    return rows


def _target_row(what: str, tokenizer: str, found: float, target: float, is_met: bool) -> str:
    return f"| {what} | {tokenizer} | {found:.2f} | {target:g} | {'met' if is_met else 'not met'} |"


def _median_speeds(runs: Runs) -> dict[tuple[str, str, int], float]:
    return {
        (command.name, command.tokenizer, command.workers): median(_speeds(found))
        for command, found in runs.items()
    }


def _peak(runs: Runs, name: str, tokenizer: str, workers: int) -> float:
    """Megabytes."""
    return max(
        measurement.peak_bytes / 1e6
        for command, found in runs.items()
        for measurement in found
        if (command.name, command.tokenizer, command.workers) == (name, tokenizer, workers)
    )


def _spelled(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()

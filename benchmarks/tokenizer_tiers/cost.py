"""What the fast tier costs since its ids are proven: whole commands, before and after.

    git worktree add ../before 5e775e4
    python benchmarks/tokenizer_tiers/cost.py ../before "data/.../Mistral-v3/tokenizer.model" ...

The two commits take turns on the same text, one worker each; the proof is in the cache before the
first timed run. Results are appended to `costs.jsonl`, which the report of this folder shows.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
TEXT_BYTES = 50_000_000
COSTS = "costs.jsonl"


def main() -> None:
    options = _options()
    sys.path.append(str(ROOT / "benchmarks/tokenize"))
    from real_text import write_text

    text = options.work / "text/text.jsonl"
    if not text.exists():
        write_text(text.parent, num_bytes=TEXT_BYTES)
    commits = {"before": options.before, "after": ROOT}
    for tokenizer in options.tokenizers:
        for commit in commits.values():
            # Reads everything from disk, and makes the proof.
            _timed(commit, tokenizer, text.with_name("first.jsonl"), options.work / "tokens")
        for name, commit in list(commits.items()) * options.rounds:
            row = {"tokenizer": tokenizer.parent.name, "commit": name}
            row |= _timed(commit, tokenizer, text, options.work / "tokens")
            print(row, flush=True)
            with (options.work / COSTS).open("a") as file:
                file.write(json.dumps(row) + "\n")


def cost_lines(work: Path) -> Iterator[str]:
    """The measurements as a section of the report."""
    path = work / COSTS
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not rows:
        return
    yield from ("", "## Cost of the fast tier", "")
    yield (
        f"`blendtitan tokenize --tokenizer-tier fast --workers 1` of {TEXT_BYTES // 10**6} MB of "
        f"real text, the whole command, before the proof (commit 5e775e4) and with it, in turns, "
        f"with the proof in the cache. Medians; CPU time of all processes."
    )
    yield from ("", "| tokenizer | | runs | CPU s | wall s | CPU after / before |")
    yield "|---|---|---|---|---|---|"
    for tokenizer in dict.fromkeys(row["tokenizer"] for row in rows):
        cpu = {name: _median(rows, tokenizer, name, "cpu") for name in ("before", "after")}
        for name in cpu:
            runs = sum((row["tokenizer"], row["commit"]) == (tokenizer, name) for row in rows)
            wall = _median(rows, tokenizer, name, "wall")
            ratio = f"{cpu['after'] / cpu['before']:.3f}" if name == "after" else ""
            yield f"| {tokenizer} | {name} | {runs} | {cpu[name]:.2f} | {wall:.2f} | {ratio} |"


def _median(rows: list[dict[str, Any]], tokenizer: str, commit: str, what: str) -> float:
    return median(r[what] for r in rows if (r["tokenizer"], r["commit"]) == (tokenizer, commit))


def _timed(commit: Path, tokenizer: Path, text: Path, output: Path) -> dict[str, float]:
    shutil.rmtree(output, ignore_errors=True)
    code = "import sys; from blendtitan.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "tokenize", str(text), "--output", str(output)]
    command += ["--tokenizer", str(tokenizer), "--tokenizer-tier", "fast", "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": str(commit / "src")}
    before, started = _cpu_seconds(), time.perf_counter()
    subprocess.run([*command, *_eos(tokenizer)], check=True, capture_output=True, env=environment)
    return {
        "cpu": round(_cpu_seconds() - before, 3),
        "wall": round(time.perf_counter() - started, 3),
    }


def _eos(tokenizer: Path) -> list[str]:
    return ["--eos-token", "<|endoftext|>"] if tokenizer.suffix == ".json" else []


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="a work tree of the commit before")
    parser.add_argument("tokenizers", type=Path, nargs="+")
    parser.add_argument("--work", type=Path, default=Path("data/tokenizer_tiers"))
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Measures `blendtitan tokenize` beside the libraries alone and a peer, and writes a report.

    python benchmarks/tokenize                 200 MB of real text, 3 rounds: about an hour
    python benchmarks/tokenize --megabytes 20 --rounds 1

All commands of a round run one after the other on the same cores, start-up included; the rounds
follow each other, so that what disturbs the machine disturbs all.
"""

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from commands import all_commands
from installs import install
from measure import Measurement, measure
from real_text import write_text
from report import report
from tokenizer_files import write_tokenizers

REPORTS = Path(__file__).parents[1]


def main() -> None:
    options = _options()
    cores = sorted(os.sched_getaffinity(0))[: options.cores]
    work = options.work.resolve()
    text = write_text(work / "text", num_bytes=options.megabytes * 10**6)
    pythons = install(work)
    tokenizers = write_tokenizers(pythons, work / "tokenizers")
    commands = all_commands(text, tokenizers, pythons, work)
    measurements: list[Measurement] = []
    for round_id in range(options.rounds):
        for command in commands:
            measurements.append(measure(command, cores=cores))
            print(f"round {round_id}: {measurements[-1]}", flush=True)
    name = f"tokenize_{len(cores)}core_{datetime.now(UTC):%Y%m}.md"
    path = options.report or REPORTS / name
    path.write_text(report(measurements, text, pythons, num_cores=len(cores)))
    print(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=200, help="text to tokenise")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each command")
    parser.add_argument("--cores", type=int, default=2, help="cores that all commands share")
    parser.add_argument("--work", type=Path, default=Path("data/benchmark_tokenize"))
    parser.add_argument("--report", type=Path, help="default: benchmarks/tokenize_*.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()

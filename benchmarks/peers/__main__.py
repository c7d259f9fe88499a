"""Measures this project beside its peers and the limits, and writes a report with a picture.

    python benchmarks/peers                       everything: 20 minutes, and 10 once to set up
    python benchmarks/peers --sections startup    that section anew, the others as they were
    python benchmarks/peers --sections            the report anew, nothing measured
    python benchmarks/peers --quick --work DIR    a smoke run: small data, without the peers

Peers are installed from PyPI into DIR/venv, corpora are written to DIR; both are kept. About 12 GB.
The picture needs `pip install 'blendtitan[plots]'`.
"""

import argparse
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import corpora
import results
from installs import PACKAGES, current, install, own_version, versions
from measure import measure
from plan import ONCE, SHAPES, all_requests
from report import report

HERE = Path(__file__).parent


def main() -> None:
    options = _options()
    sections = all_requests(quick=options.quick)
    chosen = sections if options.sections is None else options.sections
    work = options.work.resolve()
    raw = options.report.with_suffix(".jsonl")
    if chosen:
        python = current() if options.quick else install(work)
        sources = corpora.write_sources(work, corpora.QUICK if options.quick else corpora.FULL)
        if not options.quick:
            convert = [python, HERE / "convert.py", sources["one"].folder]
            subprocess.run([*convert, *(str(seq_len) for _, seq_len in SHAPES)], check=True)
        packages = ("torch", "numpy") if options.quick else PACKAGES
        about = results.about(sources.values(), own_version(), versions(python, packages))
        for name in chosen:
            found = []
            rounds = 1 if name in ONCE else options.rounds
            for result in measure(sections[name], sources, python, rounds=rounds):
                print(results.summary(result), flush=True)
                found.append(result)
            results.replace(raw, name, about, found)
    kept = results.read(raw)
    picture = None if options.quick else options.report.with_suffix(".png")
    if picture:
        from picture import draw  # Needs `pip install 'blendtitan[plots]'`.

        draw(kept, picture)
    options.report.write_text(report(kept, picture=picture.name if picture else None))
    print(options.report)


def _options() -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    name = f"peers_{cores}core_{datetime.now(UTC):%Y%m}.md"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sections", nargs="*", choices=list(all_requests()))
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each request")
    parser.add_argument("--quick", action="store_true", help="ours and the limits on small data")
    parser.add_argument("--work", type=Path, default=Path("data/benchmark_peers"))
    parser.add_argument("--report", type=Path, default=HERE.parent / name)
    return parser.parse_args()


if __name__ == "__main__":
    main()

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
from measure import Result, measure
from plan import ONCE, SHAPES, all_requests
from report import report
from request import Request
from summary import replace_table

HERE = Path(__file__).parent


def main() -> None:
    options = _options()
    raw = options.report.with_suffix(".jsonl")
    sections = all_requests(quick=options.quick)
    chosen = sections if options.sections is None else options.sections
    if chosen:
        _measure({name: sections[name] for name in chosen}, options, raw)
    kept = results.read(raw)
    picture = None if options.quick else options.report.with_suffix(".png")
    if picture:
        from picture import draw  # Needs matplotlib, which a quick run does without.

        draw(kept, picture)
    options.report.write_text(report(kept, picture=picture.name if picture else None))
    if options.readme:
        replace_table(options.readme, kept)
    print(options.report)


def _measure(sections: dict[str, list[Request]], options: argparse.Namespace, raw: Path) -> None:
    """Measure sections, and put their results in the place of those that ``raw`` has."""
    work = options.work.resolve()
    python = current() if options.quick else install(work)
    sources = corpora.write_sources(work, corpora.QUICK if options.quick else corpora.FULL)
    if not options.quick:
        convert = [python, HERE / "convert.py", sources["one"].folder]
        subprocess.run([*convert, *(str(seq_len) for _, seq_len in SHAPES)], check=True)
    packages = ("torch", "numpy") if options.quick else PACKAGES
    about = results.about(sources.values(), own_version(), versions(python, packages))
    for name, requests in sections.items():
        found: list[Result] = []
        rounds = 1 if name in ONCE else options.rounds
        for result in measure(requests, sources, python, rounds=rounds):
            print(results.summary(result), flush=True)
            found.append(result)
        results.replace(raw, name, about, found)


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
    parser.add_argument("--readme", type=Path, help="a page whose small table is replaced too")
    return parser.parse_args()


if __name__ == "__main__":
    main()

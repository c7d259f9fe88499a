"""The raw results as a Markdown page."""

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from plan import BLEND_SAMPLES, PREFETCHES, SHAPES, SLOTS, STEP_MS
from results import Results
from series import NAMES, chosen, number, ratio, rounds_of, spread, use_of, uses
from summary import summary
from targets import all_targets

ENGINES = Path(__file__).parent / "engines"
EXPLAINED = Path(__file__).parent / "explained.txt"
"""What people say about the figures, for the next report: why a target was missed, for example."""


def report(results: Results, *, picture: str | None) -> str:
    """A page of what the results say. ``picture`` is the name of a file beside the page."""
    parts = {
        "reading": _reading,
        "workers": _workers,
        "prefetch": _prefetch,
        "startup": _startup,
        "blending": _blending,
        "files": _per_rank,
    }
    lines = ["# Beside other loaders", "", *INTRODUCTION, ""]
    if picture:
        lines += [f"![Reading speed and start-up of each engine]({picture})", ""]
    lines += ["## In short", "", *SUMMARISED, "", *summary(results), ""]
    for name, part in parts.items():
        if name in results:
            lines += [*part(results), ""]
    lines += ["## Targets", "", *_targets(results), "", EXPLAINED.read_text()]
    lines += ["## How each engine is used", "", *_how(), ""]
    lines += ["## Versions and hardware", "", *_versions(results), ""]
    return "\n".join(lines)


INTRODUCTION = (
    "Made by `python benchmarks/peers`, which installs the peers from PyPI, writes the corpora",
    "and measures; the raw numbers are the `.jsonl` of the same name, and `--sections` without a",
    "name writes this page from them again. Each measurement is a process of its own, in one",
    "environment with the same torch and NumPy for all; in each round the engines follow each",
    "other, and ratios are medians of those of equal rounds. Tokens are `uint16` on disk and two",
    "int64 tensors in a batch, and are checked to be the corpora's (torchtitan reads another text",
    "and makes the tokens itself). The original BlendCorpus is not on PyPI and is left out.",
)

SUMMARISED = (
    "Reading 8 x 4096 of one corpus without workers or prefetch; starting with 2,419 files of 10",
    "corpora, without and with what an engine keeps between starts, and what a rank then holds.",
    "Medians.",
)


def _reading(results: Results) -> Iterator[str]:
    about, rows = results["reading"]
    yield "## Reading"
    yield ""
    yield "Millions of tokens per second from page-cached files, without workers, threads or"
    yield "prefetch; *of limit* is the part of the first limit in the same round."
    for source in ("one", "many"):
        for batch, seq_len in SHAPES:
            case = {"source": source, "batch": batch, "seq_len": seq_len}
            found = chosen(rows, **case)
            if not found:
                continue
            limit = rounds_of(found, "limit two", "tokens_per_s")
            yield ""
            yield f"{batch} x {seq_len}, `{source}`: {about['sources'][source]['holds']}"
            yield ""
            yield "| | median | minimum | maximum | of limit |"
            yield "|---|---|---|---|---|"
            for use in uses(found):
                speed = rounds_of(found, use, "tokens_per_s")
                share = number(ratio(speed, limit))
                yield f"| {NAMES[use]} | {spread(speed, scale=1e-6)} | {share} |"


def _workers(results: Results) -> Iterator[str]:
    rows = results["workers"][1]
    alone = results["reading"][1] if "reading" in results else []
    yield "## Reading with two workers"
    yield ""
    yield "Processes in the peers, threads here; `one`, measured once. *Of without*: part of the"
    yield "median speed without workers."
    yield ""
    shapes = [f"{batch} x {seq_len}" for batch, seq_len in SHAPES]
    yield "| | " + " | ".join(f"{shape}, M tokens/s | of without" for shape in shapes) + " |"
    yield "|---|" + "---|---|" * len(shapes)
    for use in uses(rows):
        cells: list[str] = []
        for batch, seq_len in SHAPES:
            case = {"source": "one", "batch": batch, "seq_len": seq_len}
            speed = _middle(rounds_of(rows, use, "tokens_per_s", **case))
            without = _middle(rounds_of(alone, use, "tokens_per_s", **case))
            share = speed / without if speed and without else None
            cells += [number(speed and speed / 1e6) or "failed", number(share)]
        yield f"| {NAMES[use]} | " + " | ".join(cells) + " |"


def _prefetch(results: Results) -> Iterator[str]:
    rows = results["prefetch"][1]
    yield "## Reading ahead"
    yield ""
    yield "Ours, `many`, 8 x 4096, two reading threads (none without prefetch). Speed where nothing"
    yield f"else is done, and how long a step that takes {STEP_MS:.0f} ms waits for its batch, in"
    yield "microseconds: median of the rounds."
    yield ""
    yield "| prefetch | M tokens/s | minimum | maximum | wait: median | 95 % | longest |"
    yield "|---|---|---|---|---|---|---|"
    for prefetch in PREFETCHES:
        found = chosen(rows, prefetch=prefetch)
        speed = spread(rounds_of(found, "ours", "tokens_per_s"), scale=1e-6)
        names = ("wait_us", "wait_95_us", "wait_max_us")
        waits = [number(_middle(rounds_of(found, "ours", name))) for name in names]
        yield f"| {prefetch} | {speed} | {' | '.join(waits)} |"


def _startup(results: Results) -> Iterator[str]:
    about, rows = results["startup"]
    yield "## Start-up"
    yield ""
    yield "Seconds from nothing to the first batch of 8 x 4096, imports apart, with the default"
    yield "number of workers: two threads here, none in the peers. *Cold*: without what an engine"
    yield "keeps between starts, and no `.idx` in the page cache. *Of floor*: how many times the"
    yield "floor of the same round."
    for source in dict.fromkeys(row["source"] for row in rows):
        found = chosen(rows, source=source)
        first = found[0]["first_sample"]
        yield ""
        yield f"`{source}`: {about['sources'][source]['holds']}; begun at sample {first:,}"
        yield ""
        yield (
            "| | cold | minimum | maximum | of floor | warm | minimum | maximum | of floor |\n"
            "|---|---|---|---|---|---|---|---|---|"
        )
        for use in uses(found):
            cells: list[str] = []
            for cold in (True, False):
                seconds = rounds_of(found, use, "start_s", cold=cold)
                floor = rounds_of(found, "floor", "start_s", cold=cold)
                if seconds or chosen(
                    found, engine=use.split()[0], cold=cold, variant=_variant(use)
                ):
                    cells += [spread(seconds), number(ratio(seconds, floor))]
                else:
                    cells += [" | | ", ""]
            yield f"| {NAMES[use]} | {' | '.join(cells)} |"


def _blending(results: Results) -> Iterator[str]:
    rows = results["blending"][1]
    yield "## Blending 2,419 sources"
    yield ""
    yield "Ours, the time of the first batch of 8 x 4096 once the datasets are built, milliseconds;"
    yield f"and the table that megatron-core builds for {BLEND_SAMPLES:,} samples, seconds."
    yield ""
    yield "| | median | minimum | maximum |"
    yield "|---|---|---|---|"
    for slot in SLOTS:
        first = rounds_of(rows, "ours kept", "first_batch_ms", first_sample=slot)
        yield f"| **blendtitan**, first batch at slot {slot:,}, ms | {spread(first)} |"
    table = rounds_of(rows, "megatron", "start_s")
    if chosen(rows, engine="megatron"):
        yield f"| megatron-core, its table, s | {spread(table)} |"


def _per_rank(results: Results) -> Iterator[str]:
    yield "## Per rank"
    yield ""
    yield "`many`, after the first batch. Memory is what this process alone uses, above what it"
    yield "used before it opened anything; *anonymous* leaves out pages of mapped files. Medians of"
    yield "the warm starts above."
    yield ""
    yield "| | memory, MiB | anonymous, MiB | open files | maps of files |"
    yield "|---|---|---|---|---|"
    rows = chosen(results["startup"][1], source="many", cold=False) if "startup" in results else []
    for use in uses(row for row in rows if row["engine"] != "floor"):
        names = ("memory_mib", "anonymous_mib", "files", "maps")
        cells = [number(_middle(rounds_of(rows, use, name))) for name in names]
        yield f"| {NAMES[use]} | {' | '.join(cells)} |"
    yield ""
    yield "What starts with a limit of open files (`ulimit -n`):"
    yield ""
    yield "| | limit | |"
    yield "|---|---|---|"
    for row in results["files"][1]:
        error = row.get("error", "").partition(": '")[0]
        found = f"fails: `{error[:90]}`" if error else "starts"
        yield f"| {NAMES[use_of(row)]} | {row['max_files']:,} | {found} |"


def _targets(results: Results) -> Iterator[str]:
    yield "| | measured | target | |"
    yield "|---|---|---|---|"
    for target in all_targets(results):
        sign = "at least" if target.at_least else "at most"
        allowed = f"{sign} {number(target.allowed)}"
        met = "met" if target.is_met else "**not met**"
        yield f"| {target.what} | {number(target.found)} | {allowed} | {met} |"


def _how() -> Iterator[str]:
    """The beginning of each engine's file, where its settings are explained."""
    for path in sorted(ENGINES.glob("[a-z]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        yield f"- [`{path.stem}`](peers/engines/{path.name}): {' '.join(text.split())}"


def _versions(results: Results) -> Iterator[str]:
    """Each section's, once where they are the same."""
    sections: dict[str, list[str]] = {}
    for name, (about, _) in results.items():
        versions = ", ".join(f"{package} {text}" for package, text in about["versions"].items())
        sections.setdefault(f"{about['machine']}; {versions}", []).append(f"{name} {about['at']}")
    for text, measured in sections.items():
        yield f"- {text}. Measured: {', '.join(measured)}."


def _middle(rounds: dict[int, float]) -> float | None:
    return median(rounds.values()) if rounds else None


def _variant(use: str) -> str:
    return use.partition(" ")[2]

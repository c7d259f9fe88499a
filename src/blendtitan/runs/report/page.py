"""A report as one self-contained HTML file, from the template ``page.html``."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blendtitan import metric_names
from blendtitan.batch_schedule import listed_sizes
from blendtitan.errors import requires_extra
from blendtitan.runs import scalars
from blendtitan.runs.report import documents, figures
from blendtitan.runs.report.facts import BlendCurve, RunFacts, by_share
from blendtitan.runs.report.figures import DARK, LIGHT, Figure, package_text
from blendtitan.storage.atomic_files import write_atomically, writing
from blendtitan.storage.replaceable import check_replaceable

# Before any work is done: gathering the facts of a run may take minutes.
with requires_extra("report", "an HTML page"):
    import jinja2
    from plotly.offline import get_plotlyjs

_GENERATOR = '<meta name="generator" content="blendtitan report">'
"""A line near the beginning of the template that identifies earlier pages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """The contents of a page: runs side by side, or the blend of a run that has not begun."""

    title: str
    lead: str
    runs: Sequence[RunFacts] = ()
    curve: BlendCurve | None = None


def report_page(runs: Sequence[RunFacts]) -> Page:
    """The page of one run, or of several side by side."""
    lead = "Training on a blend, from its configuration, checkpoints and metrics."
    return Page(title=", ".join(run.name for run in runs), lead=lead, runs=runs)


def page_html(page: Page) -> str:
    """The page as HTML.

    Text of any kind is escaped. The page allows no script except its own two, which it names by
    their digests, and no request, so the text of a document is harmless.
    """
    library, script = get_plotlyjs(), package_text("page.js")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"values": _values, "after_step": "after step {:,.6g}".format}
    drawn: list[Figure] = []
    keys = sorted({key for run in page.runs for key in run.settings})
    settings = [(key, [run.settings.get(key) for run in page.runs]) for key in keys]
    return environment.from_string(package_text("page.html")).render(
        page=page,
        runs=page.runs,
        drawn=drawn,
        figures=figures,
        documents=documents,
        metrics=metric_names,
        scalars=scalars,
        corpora=by_share([page.curve] if page.curve else [run.curve for run in page.runs]),
        summaries=[summary(run) for run in page.runs],
        same_documents=_same_documents(page.runs),
        differing=[(key, own) for key, own in settings if None not in own and len({*own}) > 1],
        partly=[(key, own) for key, own in settings if None in own],
        count="{:,}".format,
        percent="{:.2%}".format,
        loss="{:.4f}".format,
        digits=_digits,
        style=package_text("page.css"),
        library=library,
        script=script,
        digests=[_digest(library), _digest(script)],
        themes={"light": LIGHT, "dark": DARK},
    )


def summary(run: RunFacts) -> dict[str, str]:
    """The facts about a run in words, by name. Facts that are unknown are left out."""
    read = sum(corpus.tokens_read for corpus in run.corpora)
    seconds, starts = run.wall_seconds, run.num_starts
    shown = {
        "description": run.description,
        "model": run.model,
        "steps trained": f"{run.reached_step:,} of {run.last_step:,}",
        "samples": f"{amount(run.samples_read)} of {amount(run.num_samples)}",
        "skipped": "; ".join(map(str, run.skipped)),
        "removed": run.removed,
        "tokens": f"{amount(read)} of {amount(run.tokens_at_end)}",
        "samples per step": listed_sizes(run.schedule, run.last_step),
        "sequence length": ", then ".join(f"{seq_len:,}" for seq_len in run.seq_lens),
        "corpora": f"{len(run.corpora):,}",
        **_losses(run),
        "wall time": duration(seconds) if seconds else None,
        "starts": f"{starts:,}" if starts > 1 else None,
        "tokens per second, median": _median(run, scalars.TOKENS_PER_SECOND, amount),
        "per device, median": _median(run, scalars.DEVICE_TOKENS_PER_SECOND, amount),
        "MFU, median": _median(run, scalars.MFU, "{:.3g}%".format),
        "ranks wait for the slowest one": run.waiting,
        "step time spent waiting for data": None if run.waited is None else f"{run.waited:.2%}",
    }
    return {name: value for name, value in shown.items() if value}


def _losses(run: RunFacts) -> Mapping[str, str]:
    of_run = {"last loss": metric_names.LOSS, "last validation loss": metric_names.VALIDATION_LOSS}
    last = {name: run.last(metric) for name, metric in of_run.items()}
    return {name: f"{loss:.4f}" for name, loss in last.items() if loss is not None}


def _median(run: RunFacts, metric: str, form: Callable[[float], str]) -> str | None:
    value = run.median(metric)
    return None if value is None else form(value)


def amount(number: float) -> str:
    """A count; from a hundred million on, with three digits and a unit."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if number >= max(size, 1e8):
            return f"{number / size:.3g} {unit}"
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """A time in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def check_page(path: Path) -> None:
    """Check that a page written to ``path`` would replace nothing but an earlier page.

    Raises:
        ConfigError: Another file or folder has this name.
    """
    check_replaceable(path, _GENERATOR)


def write_page(page: Page, path: Path, *, overwrite: bool = False) -> int:
    """Write a page atomically, create its folder if needed, and return its size in bytes.

    ``overwrite`` replaces a file that is not an earlier page.

    Raises:
        ConfigError: Another file has this name.
        OutputError: The disk is full, or does not let the file be written.
    """
    if not overwrite:
        check_page(path)
    content = page_html(page).encode()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return len(content)


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 100 else f"{number:,.0f}"


def _same_documents(runs: Sequence[RunFacts]) -> Mapping[str, str]:
    """The first run that reads the same documents, by the name of each later run."""
    first: dict[Any, str] = {}
    found = {run.name: first.setdefault(_shown_documents(run), run.name) for run in runs}
    return {name: other for name, other in found.items() if name != other}


def _shown_documents(run: RunFacts) -> tuple[Any, ...]:
    """The corpora of a run in the section on documents."""
    lengths = {name: own.quantiles for name, own in run.lengths.items()}
    own = ((c.name, c.tokens, c.documents or 0, lengths.get(c.name, ())) for c in run.corpora)
    return tuple(sorted(own))


def _digest(script: str) -> str:
    """The hash that identifies a script in a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _values(values: object) -> str:
    """JSON that no HTML parser takes for a tag or the end of a script."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")

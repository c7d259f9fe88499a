"""The corpora of a report: how often each is read, its shares, what it holds."""

from collections.abc import Iterator, Sequence

from blendtitan.metric_names import CORPUS_LOSS, VALIDATION_LOSS
from blendtitan.runs.report.blocks import (
    Block,
    Cell,
    Form,
    Paragraph,
    Picture,
    count,
    digits,
    number_cell,
    percent,
    table,
)
from blendtitan.runs.report.facts import CorpusFacts, RunFacts, whose
from blendtitan.runs.report.figures import MOST_CORPORA, epochs_figure, lens_figure
from blendtitan.runs.report.lengths import MOST_DOCUMENTS, CorpusLens


def corpus_blocks(runs: Sequence[RunFacts]) -> Iterator[Block]:
    """Epochs as a picture; shares, epochs and losses as tables."""
    yield Picture(
        "Epochs of each corpus: tokens read for each token that it has in the train split. Those "
        "read again count again.",
        epochs_figure(runs),
    )
    if len(runs) > 1:
        yield _side_by_side(runs)
    for run in runs:
        yield _corpus_table(run)


def _corpus_table(run: RunFacts) -> Block:
    when = "so far" if run.reached_step else "over the whole run, which has not begun"
    headings = (
        *("corpus", "configured", "achieved", "tokens read", "epochs", "epochs at the end"),
        *("loss", "validation loss"),
    )
    return table(
        f"{run.name}: shares {when}; tokens read and epochs so far; the last losses",
        headings,
        (_corpus_cells(run, corpus) for corpus in run.corpora),
    )


def _corpus_cells(run: RunFacts, corpus: CorpusFacts) -> Iterator[Cell]:
    yield Cell(corpus.name)
    yield number_cell(corpus.configured, percent)
    yield number_cell(corpus.achieved, percent)
    yield number_cell(corpus.tokens_read, count)
    yield number_cell(corpus.epochs, digits)
    yield number_cell(corpus.epochs_at_end, digits)
    for prefix in (CORPUS_LOSS, VALIDATION_LOSS):
        yield _last(run, f"{prefix}/{corpus.name}")


def _side_by_side(runs: Sequence[RunFacts]) -> Block:
    """One row for each corpus of any run, with a group of columns for each run."""
    names = list(dict.fromkeys(corpus.name for run in runs for corpus in run.corpora))
    of_run = [{corpus.name: corpus for corpus in run.corpora} for run in runs]
    what = ("share", "epochs", "loss", "validation loss")
    return table(
        "Side by side: achieved share, epochs at the end of the run, the last losses",
        ["corpus", *(f"{each}, {run.name}" for each in what for run in runs)],
        (
            [
                Cell(name),
                *(_of(own, name, "achieved", percent) for own in of_run),
                *(_of(own, name, "epochs_at_end", digits) for own in of_run),
                *(_last(run, f"{CORPUS_LOSS}/{name}") for run in runs),
                *(_last(run, f"{VALIDATION_LOSS}/{name}") for run in runs),
            ]
            for name in names
        ),
    )


def _of(corpora: dict[str, CorpusFacts], name: str, field: str, form: Form) -> Cell:
    return number_cell(getattr(corpora[name], field), form) if name in corpora else Cell("")


def _last(run: RunFacts, metric: str) -> Cell:
    found = run.metrics.get(metric)
    return number_cell(None if found is None else found.values[-1], "{:.4f}".format)


def document_blocks(runs: Sequence[RunFacts]) -> Iterator[Block]:
    """Lengths of documents; of runs that read the same data once."""
    told: list[tuple[object, str]] = []
    for run in runs:
        held = [_held(corpus, run.lens.get(corpus.name)) for corpus in run.corpora]
        same = [name for known, name in told if known == sorted(held)]
        if same:
            yield Paragraph(f"{run.name}: the same documents as {same[0]}.")
            continue
        told.append((sorted(held), run.name))
        yield from _documents_of(runs, run)


def _documents_of(runs: Sequence[RunFacts], run: RunFacts) -> Iterator[Block]:
    lens = [(c.name, run.lens[c.name]) for c in run.corpora if c.name in run.lens]
    if lens:
        cut = f" The {MOST_CORPORA} largest shares." if len(lens) > MOST_CORPORA else ""
        caption = f"Documents of a corpus by length; two bins are a doubling.{cut}"
        yield Picture(whose(runs, run) + caption, lens_figure(lens[:MOST_CORPORA]))
    else:
        yield Paragraph(f"{run.name}: the data is not there.")
    yield _lens_table(run)
    sampled = [name for name, own in lens if own.num_counted < own.num_documents]
    if sampled:
        yield Paragraph(
            f"{run.name}: lengths of an even sample of about {MOST_DOCUMENTS:,} documents of "
            f"each of {', '.join(sampled[:10])}{' and others' if len(sampled) > 10 else ''}."
        )


def _held(corpus: CorpusFacts, lens: CorpusLens | None) -> tuple[str | int, ...]:
    """What tells one corpus from another as far as this section shows it."""
    quantiles = () if lens is None else (lens.min, lens.median, lens.p90, lens.max)
    return (corpus.name, corpus.tokens, corpus.documents or 0, *quantiles)


def _lens_table(run: RunFacts) -> Block:
    return table(
        f"{run.name}: what the train split holds; lengths of documents in tokens",
        ("corpus", "shards", "documents", "tokens", "shortest", "median", "p90", "longest"),
        (_lens_cells(run, corpus) for corpus in run.corpora),
    )


def _lens_cells(run: RunFacts, corpus: CorpusFacts) -> Iterator[Cell]:
    yield Cell(corpus.name)
    for number in (corpus.shards, corpus.documents, corpus.tokens):
        yield number_cell(number, count)
    lens = run.lens.get(corpus.name)
    for length in (lens.min, lens.median, lens.p90, lens.max) if lens else (None,) * 4:
        yield number_cell(length, count)

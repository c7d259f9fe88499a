"""The parts of a report, from the facts of its runs."""

from collections.abc import Iterator, Sequence

from blendtitan.inspection.report.blend_figure import blend_figure
from blendtitan.inspection.report.blocks import (
    Block,
    Cell,
    Facts,
    Folded,
    Page,
    Paragraph,
    Picture,
    Samples,
    Section,
    count,
    digits,
    number_cell,
    percent,
    table,
)
from blendtitan.inspection.report.facts import SPEED, WAIT, CorpusFacts, RunFacts
from blendtitan.inspection.report.figures import (
    MOST_CORPORA,
    corpus_metric_figure,
    epochs_figure,
    lens_figure,
    metric_figure,
)
from blendtitan.inspection.report.lengths import MOST_DOCUMENTS
from blendtitan.inspection.report.texts import MOST_SAMPLES, OF_EACH

LOSS = "loss_metrics/global_avg_loss"
CORPUS_LOSS = "loss_metrics/loss"
VALIDATION = "validation_metrics/loss"
BLEND_CAPTION = (
    "Bands are the samples that the order gives each corpus; dashed lines are where they would "
    "meet if every stretch had exactly the shares that are configured."
)


def report_page(runs: Sequence[RunFacts]) -> Page:
    """The page of one run, or of several side by side."""
    parts = (
        ("summary", "Summary", _summary(runs)),
        ("blend", "Blend", _blend(runs)),
        ("corpora", "Corpora", _corpora(runs)),
        ("losses", "Losses", _losses(runs)),
        ("waiting", "Waiting for data", _waiting(runs)),
        ("documents", "Document lengths", _documents(runs)),
        ("samples", "Sample texts", _samples(runs)),
        ("configuration", "Configuration", _configuration(runs)),
    )
    names = ", ".join(run.name for run in runs)
    return Page(
        title=names,
        lead="Training on a blend, as its order, its checkpoints and its metrics tell it.",
        sections=tuple(Section(name, title, tuple(blocks)) for name, title, blocks in parts),
    )


def blend_pictures(runs: Sequence[RunFacts]) -> Iterator[Block]:
    """The blend of each run."""
    for run in runs:
        whose = f"{run.name}. " if len(runs) > 1 else ""
        yield Picture(whose + BLEND_CAPTION, blend_figure(run.curve, reached_step=run.reached_step))


def _summary(runs: Sequence[RunFacts]) -> Iterator[Block]:
    for run in runs:
        yield Facts(run.name if len(runs) > 1 else "", tuple(_facts(run)))
        yield Paragraph(f"{run.run.path}. The order is that of {run.about}.")


def _facts(run: RunFacts) -> Iterator[tuple[str, str]]:
    yield "steps trained", f"{run.reached_step:,} of {run.last_step:,}"
    yield "samples", count(run.num_samples)
    yield "tokens", count(run.tokens_at_end)
    yield "samples a step", count(run.run.global_batch_size)
    yield "sequence length", count(run.run.blend.seq_length)
    yield "corpora", count(len(run.corpora))
    if run.waited is not None:
        yield "time waited for data", f"{run.waited:.2%}"
    for metric, called in ((LOSS, "last loss"), (VALIDATION, "last validation loss")):
        if metric in run.metrics:
            yield called, f"{run.metrics[metric].values[-1]:.4f}"


def _blend(runs: Sequence[RunFacts]) -> Iterator[Block]:
    yield from blend_pictures(runs)
    for run in runs:
        if len(run.curve.segment_steps) > 1:
            yield _segments(run)


def _segments(run: RunFacts) -> Block:
    curve = run.curve
    headings = [f"after step {step:,.6g}" for step in curve.segment_steps.tolist()]
    return table(
        f"{run.name}: configured share of each segment",
        ["corpus", *headings],
        (
            [Cell(name), *(number_cell(share, percent) for share in curve.configured[c].tolist())]
            for c, name in enumerate(curve.corpora)
        ),
    )


def _corpora(runs: Sequence[RunFacts]) -> Iterator[Block]:
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
    for prefix in (CORPUS_LOSS, VALIDATION):
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
                *(_last(run, f"{VALIDATION}/{name}") for run in runs),
            ]
            for name in names
        ),
    )


def _of(corpora: dict[str, CorpusFacts], name: str, field: str, form: object) -> Cell:
    assert callable(form)
    return number_cell(getattr(corpora[name], field), form) if name in corpora else Cell("")


def _last(run: RunFacts, metric: str) -> Cell:
    found = run.metrics.get(metric)
    return number_cell(None if found is None else found.values[-1], "{:.4f}".format)


def _losses(runs: Sequence[RunFacts]) -> Iterator[Block]:
    names = _drawn(runs)
    of_all = f" The {len(names)} corpora with the largest shares." if _is_cut(runs) else ""
    pictures = (
        (
            metric_figure(runs, [(LOSS, "training"), (VALIDATION, "validation")], "loss"),
            "Loss of the blend, in training and in validation.",
        ),
        (
            corpus_metric_figure(runs, CORPUS_LOSS, names, "loss"),
            f"Training loss of each corpus.{of_all}",
        ),
        (
            corpus_metric_figure(runs, VALIDATION, names, "validation loss"),
            f"Validation loss of each corpus.{of_all}",
        ),
    )
    found = [Picture(caption, figure) for figure, caption in pictures if figure is not None]
    yield from found
    yield from _without(runs, LOSS, "no losses")


def _waiting(runs: Sequence[RunFacts]) -> Iterator[Block]:
    pictures = (
        (
            metric_figure(runs, [(WAIT, "waiting")], "seconds"),
            "Time that the rank which logs waited for batches, since the step logged before.",
        ),
        (
            metric_figure(runs, [(SPEED, "samples")], "samples a second"),
            "Samples of all ranks for each second in training steps.",
        ),
    )
    yield from (Picture(caption, figure) for figure, caption in pictures if figure is not None)
    yield from _without(runs, WAIT, "no waiting")


def _without(runs: Sequence[RunFacts], metric: str, what: str) -> Iterator[Block]:
    for run in runs:
        if metric not in run.metrics:
            yield Paragraph(
                f"{run.name}: {what}, because no TensorBoard file below its folder has any. A run "
                f"writes them with metrics.enable_tensorboard = true."
            )


def _documents(runs: Sequence[RunFacts]) -> Iterator[Block]:
    told: list[object] = []
    for run in runs:
        lens = [(c.name, run.lens[c.name]) for c in run.corpora if c.name in run.lens]
        medians = {name: (own.num_documents, own.median, own.max) for name, own in lens}
        if not lens:
            yield Paragraph(f"{run.name}: the data is not there.")
        elif medians not in told:
            told.append(medians)
            cut = f" The {MOST_CORPORA} largest shares." if len(lens) > MOST_CORPORA else ""
            caption = f"Documents of a corpus by length; two bins are a doubling.{cut}"
            yield Picture(_whose(runs, run) + caption, lens_figure(lens[:MOST_CORPORA]))
        yield _lens_table(run)
        sampled = [name for name, own in lens if own.num_counted < own.num_documents]
        if sampled:
            yield Paragraph(
                f"{run.name}: lengths of an even sample of about {MOST_DOCUMENTS:,} documents of "
                f"each of {', '.join(sampled[:10])}{' and others' if len(sampled) > 10 else ''}."
            )


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


def _samples(runs: Sequence[RunFacts]) -> Iterator[Block]:
    yield Paragraph(
        f"The first {OF_EACH} samples of each corpus from the step on, at most {MOST_SAMPLES}: "
        f"what the model really reads, windows that begin and end anywhere."
    )
    for run in runs:
        names = list(dict.fromkeys(sample.corpus for sample in run.samples))
        for name in names:
            own = tuple(sample for sample in run.samples if sample.corpus == name)
            yield Samples(f"{_whose(runs, run)}{name}, from step {run.samples_step:,} on", own)
        missing = [corpus.name for corpus in run.corpora if corpus.name not in names]
        if missing:
            more = f" and {len(missing) - 10:,} others" if len(missing) > 10 else ""
            yield Paragraph(f"{_whose(runs, run)}None of {', '.join(missing[:10])}{more}.")


def _configuration(runs: Sequence[RunFacts]) -> Iterator[Block]:
    if len(runs) > 1:
        yield from _differences(runs)
    for run in runs:
        keys = table(
            f"Every key of {run.run.path}",
            ["key", "value"],
            ([Cell(key), Cell(value)] for key, value in run.settings.items()),
        )
        yield Folded(f"{run.name}: {len(run.settings):,} keys", (keys,))


def _differences(runs: Sequence[RunFacts]) -> Iterator[Block]:
    keys = sorted({key for run in runs for key in run.settings})
    found = {key: [run.settings.get(key) for run in runs] for key in keys}
    differ = {k: v for k, v in found.items() if None not in v and len(set(v)) > 1}
    partly = {k: v for k, v in found.items() if None in v}
    headings = ["key", *(run.name for run in runs)]
    for caption, values in (
        ("Keys that differ", differ),
        ("Keys that not every file has", partly),
    ):
        rows = ([Cell(key), *(Cell(each or "") for each in own)] for key, own in values.items())
        shown = table(caption, headings, rows)
        yield shown if values is differ else Folded(f"{caption}: {len(values):,}", (shown,))


def _whose(runs: Sequence[RunFacts], run: RunFacts) -> str:
    return f"{run.name}: " if len(runs) > 1 else ""


def _drawn(runs: Sequence[RunFacts]) -> list[str]:
    """The corpora that are drawn one by one: the largest shares of the first run, then others."""
    names = dict.fromkeys(corpus.name for run in runs for corpus in run.corpora)
    return list(names)[:MOST_CORPORA]


def _is_cut(runs: Sequence[RunFacts]) -> bool:
    return len({corpus.name for run in runs for corpus in run.corpora}) > MOST_CORPORA

"""The parts of a report, from the facts of its runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from blendtitan.metric_names import (
    CORPUS_LOSS,
    LOSS,
    SAMPLES_PER_SECOND,
    VALIDATION_LOSS,
    WAIT_SECONDS,
)
from blendtitan.runs.report.documents import MOST_DOCUMENTS, MOST_SAMPLES, OF_EACH
from blendtitan.runs.report.facts import BlendCurve, CorpusFacts, RunFacts
from blendtitan.runs.report.figures import (
    MOST_CORPORA,
    blend_figure,
    corpus_metric_figure,
    epochs_figure,
    lengths_figure,
    metric_figure,
)
from blendtitan.runs.report.page import (
    Block,
    Cell,
    Facts,
    Folded,
    Page,
    Paragraph,
    Picture,
    Samples,
    Section,
    SideBySide,
    table,
)

Form = Callable[[Any], str]
"""How a number is written."""

BLEND_CAPTION = (
    "Bands show the samples that the order gives each corpus; dashed lines show where they would "
    "meet if every stretch had exactly the configured shares."
)

_count: Form = "{:,}".format
_percent: Form = "{:.2%}".format
_loss: Form = "{:.4f}".format


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 100 else f"{number:,.0f}"


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
    return Page(
        title=", ".join(run.name for run in runs),
        lead="Training on a blend, from its configuration, checkpoints and metrics.",
        sections=tuple(Section(name, title, tuple(blocks)) for name, title, blocks in parts),
    )


def blend_page(title: str, lead: str, curve: BlendCurve) -> Page:
    """A page of one picture: the blend of a run that has not begun."""
    picture = Picture(BLEND_CAPTION, blend_figure(curve))
    return Page(title, lead, (Section("blend", "Blend", (picture,)),))


def _whose(runs: Sequence[RunFacts], run: RunFacts) -> str:
    """The beginning of a sentence about one of several runs."""
    return f"{run.name}: " if len(runs) > 1 else ""


def _number(value: Any, form: Form) -> Cell:
    """A number as ``form`` writes it, sorted by its value; empty for None."""
    return Cell("") if value is None else Cell(form(value), float(value))


def _summary(runs: Sequence[RunFacts]) -> Iterator[Block]:
    for run in runs:
        yield Facts(run.name if len(runs) > 1 else "", tuple(_facts(run)))
        yield Paragraph(f"{run.config.path}. The order is from {run.about}.")


def _facts(run: RunFacts) -> Iterator[tuple[str, str]]:
    yield "steps trained", f"{run.reached_step:,} of {run.last_step:,}"
    yield "samples", _count(run.num_samples)
    yield "tokens", _count(run.tokens_at_end)
    yield "samples a step", _count(run.config.global_batch_size)
    yield "sequence length", _count(run.config.blend.seq_length)
    yield "corpora", _count(len(run.corpora))
    if run.waited is not None:
        yield "time waited for data", _percent(run.waited)
    for metric, called in ((LOSS, "last loss"), (VALIDATION_LOSS, "last validation loss")):
        if metric in run.metrics:
            yield called, _loss(run.metrics[metric].values[-1])


def _blend(runs: Sequence[RunFacts]) -> Iterator[Block]:
    yield SideBySide(
        tuple(
            Picture(
                _whose(runs, run) + BLEND_CAPTION,
                blend_figure(run.curve, reached_step=run.reached_step),
            )
            for run in runs
        )
    )
    for run in runs:
        curve, steps = run.curve, run.curve.segment_steps.tolist()
        if len(steps) > 1:
            yield table(
                f"{run.name}: configured share of each segment",
                ["corpus", *(f"after step {step:,.6g}" for step in steps)],
                (
                    [Cell(name), *(_number(share, _percent) for share in curve.configured[c])]
                    for c, name in enumerate(curve.corpora)
                ),
            )


def _corpora(runs: Sequence[RunFacts]) -> Iterator[Block]:
    yield Picture(
        "Epochs of each corpus: tokens read for each token that it has in the train split. Tokens "
        "read again count again.",
        epochs_figure(runs),
    )
    if len(runs) > 1:
        yield _side_by_side(runs)
    for run in runs:
        when = "so far" if run.reached_step else "over the whole run, which has not begun"
        yield table(
            f"{run.name}: shares {when}; tokens read and epochs so far; the last losses",
            (
                *("corpus", "configured", "achieved", "tokens read", "epochs"),
                *("epochs at the end", "loss", "validation loss"),
            ),
            (
                [
                    Cell(corpus.name),
                    *(_number(share, _percent) for share in (corpus.configured, corpus.achieved)),
                    _number(corpus.tokens_read, _count),
                    *(_number(n, _digits) for n in (corpus.epochs, corpus.epochs_at_end)),
                    *(_last(run, metric, corpus.name) for metric in (CORPUS_LOSS, VALIDATION_LOSS)),
                ]
                for corpus in run.corpora
            ),
        )


def _side_by_side(runs: Sequence[RunFacts]) -> Block:
    """One row for each corpus of any run, with a group of columns for each run."""
    of_run = [{corpus.name: corpus for corpus in run.corpora} for run in runs]
    what = ("share", "epochs", "loss", "validation loss")

    def cells(field: str, name: str, form: Form) -> Iterator[Cell]:
        for own in of_run:
            yield _number(getattr(own[name], field) if name in own else None, form)

    return table(
        "Side by side: achieved share, epochs at the end of the run, the last losses",
        ["corpus", *(f"{each}, {run.name}" for each in what for run in runs)],
        (
            [
                Cell(name),
                *cells("achieved", name, _percent),
                *cells("epochs_at_end", name, _digits),
                *(_last(run, m, name) for m in (CORPUS_LOSS, VALIDATION_LOSS) for run in runs),
            ]
            for name in _names(runs)
        ),
    )


def _last(run: RunFacts, metric: str, corpus: str) -> Cell:
    found = run.metrics.get(f"{metric}/{corpus}")
    return _number(None if found is None else found.values[-1], _loss)


def _names(runs: Sequence[RunFacts]) -> list[str]:
    """The corpora of all runs: the largest shares of the first run, then others."""
    return list(dict.fromkeys(corpus.name for run in runs for corpus in run.corpora))


def _losses(runs: Sequence[RunFacts]) -> Iterator[Block]:
    names = _names(runs)
    drawn = names[:MOST_CORPORA]
    of_all = (
        f" The {len(drawn)} corpora with the largest shares." if len(names) > len(drawn) else ""
    )
    blend = [(LOSS, "training"), (VALIDATION_LOSS, "validation")]
    yield from _pictures(
        (
            metric_figure(runs, blend, "loss"),
            "Loss of the blend, in training and in validation.",
        ),
        (
            corpus_metric_figure(runs, CORPUS_LOSS, drawn, "loss"),
            f"Training loss of each corpus.{of_all}",
        ),
        (
            corpus_metric_figure(runs, VALIDATION_LOSS, drawn, "validation loss"),
            f"Validation loss of each corpus.{of_all}",
        ),
    )
    yield from _without(runs, LOSS, "no losses")


def _waiting(runs: Sequence[RunFacts]) -> Iterator[Block]:
    yield from _pictures(
        (
            metric_figure(runs, [(WAIT_SECONDS, "waiting")], "seconds"),
            "Time that the logging rank waited for batches, since the step logged before.",
        ),
        (
            metric_figure(runs, [(SAMPLES_PER_SECOND, "samples")], "samples a second"),
            "Samples of all ranks per second of training steps.",
        ),
    )
    yield from _without(runs, WAIT_SECONDS, "no waiting times")


def _pictures(*figures: tuple[dict[str, Any] | None, str]) -> Iterator[Block]:
    yield from (Picture(caption, figure) for figure, caption in figures if figure is not None)


def _without(runs: Sequence[RunFacts], metric: str, what: str) -> Iterator[Block]:
    for run in runs:
        if metric not in run.metrics:
            yield Paragraph(
                f"{run.name}: {what}, because no TensorBoard file below its folder has any. A run "
                f"writes them with metrics.enable_tensorboard = true."
            )


def _documents(runs: Sequence[RunFacts]) -> Iterator[Block]:
    """Document lengths; of runs that read the same data once."""
    known: dict[tuple[object, ...], str] = {}
    for run in runs:
        held = tuple(sorted(_held(run, corpus) for corpus in run.corpora))
        if held in known:
            yield Paragraph(f"{run.name}: the same documents as {known[held]}.")
        else:
            known[held] = run.name
            yield from _documents_of(runs, run)


def _held(run: RunFacts, corpus: CorpusFacts) -> tuple[str | int, ...]:
    """What distinguishes a corpus from another one, as far as this section shows it."""
    lengths = run.lengths.get(corpus.name)
    quantiles = () if lengths is None else lengths.quantiles
    return (corpus.name, corpus.tokens, corpus.documents or 0, *quantiles)


def _documents_of(runs: Sequence[RunFacts], run: RunFacts) -> Iterator[Block]:
    lengths = [(c.name, run.lengths[c.name]) for c in run.corpora if c.name in run.lengths]
    if lengths:
        cut = f" The {MOST_CORPORA} largest shares." if len(lengths) > MOST_CORPORA else ""
        caption = f"Documents of a corpus by length; two bins are a doubling.{cut}"
        yield Picture(_whose(runs, run) + caption, lengths_figure(lengths[:MOST_CORPORA]))
    else:
        yield Paragraph(f"{run.name}: the data is not there.")
    unknown = (None,) * 4
    of_corpus = dict(lengths)
    yield table(
        f"{run.name}: what the train split holds; lengths of documents in tokens",
        ("corpus", "shards", "documents", "tokens", "shortest", "median", "p90", "longest"),
        (
            [
                Cell(c.name),
                *(_number(number, _count) for number in (c.shards, c.documents, c.tokens)),
                *(
                    _number(length, _count)
                    for length in (of_corpus[c.name].quantiles if c.name in of_corpus else unknown)
                ),
            ]
            for c in run.corpora
        ),
    )
    sampled = [name for name, own in lengths if own.num_counted < own.num_documents]
    if sampled:
        yield Paragraph(
            f"{run.name}: lengths of an even sample of about {MOST_DOCUMENTS:,} documents of "
            f"each of {', '.join(sampled[:10])}{' and others' if len(sampled) > 10 else ''}."
        )


def _samples(runs: Sequence[RunFacts]) -> Iterator[Block]:
    yield Paragraph(
        f"The first {OF_EACH} samples of each corpus from step {runs[0].samples_step:,} on, at "
        f"most {MOST_SAMPLES}: what the model really reads, windows that begin and end anywhere."
    )
    for run in runs:
        names = list(dict.fromkeys(sample.corpus for sample in run.samples))
        for name in names:
            own = tuple(sample for sample in run.samples if sample.corpus == name)
            yield Samples(f"{_whose(runs, run)}{name}", own)
        missing = [corpus.name for corpus in run.corpora if corpus.name not in names]
        if missing:
            more = f" and {len(missing) - 10:,} others" if len(missing) > 10 else ""
            yield Paragraph(f"{_whose(runs, run)}None of {', '.join(missing[:10])}{more}.")


def _configuration(runs: Sequence[RunFacts]) -> Iterator[Block]:
    """The keys that differ, then all keys of each run."""
    if len(runs) > 1:
        yield from _differences(runs)
    for run in runs:
        keys = table(
            f"Every key of {run.config.path}",
            ["key", "value"],
            ([Cell(key), Cell(value)] for key, value in run.settings.items()),
        )
        yield Folded(f"{run.name}: {len(run.settings):,} keys", (keys,))


def _differences(runs: Sequence[RunFacts]) -> Iterator[Block]:
    keys = sorted({key for run in runs for key in run.settings})
    found = {key: [run.settings.get(key) for run in runs] for key in keys}
    differ = {k: v for k, v in found.items() if None not in v and len(set(v)) > 1}
    partly = {k: v for k, v in found.items() if None in v}
    yield _values_table("Keys that differ", runs, differ)
    if partly:
        caption = "Keys that some files lack; there the default applies"
        values = _values_table(caption, runs, partly)
        yield Folded(f"{len(partly):,} keys that some files lack", (values,))


def _values_table(
    caption: str, runs: Sequence[RunFacts], values: Mapping[str, Sequence[str | None]]
) -> Block:
    rows = ([Cell(key), *(Cell(each or "") for each in own)] for key, own in values.items())
    return table(caption, ["key", *(run.name for run in runs)], rows)

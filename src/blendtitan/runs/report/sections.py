"""The parts of a report, from the facts of its runs."""

from collections.abc import Iterator, Sequence

from blendtitan.metric_names import (
    CORPUS_LOSS,
    LOSS,
    SAMPLES_PER_SECOND,
    VALIDATION_LOSS,
    WAIT_SECONDS,
)
from blendtitan.runs.report.blend_curve import BlendCurve
from blendtitan.runs.report.blend_figure import blend_figure
from blendtitan.runs.report.blocks import (
    Block,
    Cell,
    Facts,
    Page,
    Paragraph,
    Picture,
    Samples,
    Section,
    SideBySide,
    count,
    number_cell,
    percent,
    table,
)
from blendtitan.runs.report.configuration_section import configuration_blocks
from blendtitan.runs.report.corpus_section import corpus_blocks, document_blocks
from blendtitan.runs.report.facts import RunFacts, whose
from blendtitan.runs.report.figures import (
    MOST_CORPORA,
    corpus_metric_figure,
    metric_figure,
)
from blendtitan.runs.report.texts import MOST_SAMPLES, OF_EACH

BLEND_CAPTION = (
    "Bands are the samples that the order gives each corpus; dashed lines are where they would "
    "meet if every stretch had exactly the shares that are configured."
)


def report_page(runs: Sequence[RunFacts]) -> Page:
    """The page of one run, or of several side by side."""
    parts = (
        ("summary", "Summary", _summary(runs)),
        ("blend", "Blend", _blend(runs)),
        ("corpora", "Corpora", corpus_blocks(runs)),
        ("losses", "Losses", _losses(runs)),
        ("waiting", "Waiting for data", _waiting(runs)),
        ("documents", "Document lengths", document_blocks(runs)),
        ("samples", "Sample texts", _samples(runs)),
        ("configuration", "Configuration", configuration_blocks(runs)),
    )
    names = ", ".join(run.name for run in runs)
    return Page(
        title=names,
        lead="Training on a blend, as its order, its checkpoints and its metrics tell it.",
        sections=tuple(Section(name, title, tuple(blocks)) for name, title, blocks in parts),
    )


def blend_page(title: str, lead: str, curve: BlendCurve) -> Page:
    """A page of one picture: the blend of a run that has not begun."""
    picture = Picture(BLEND_CAPTION, blend_figure(curve))
    return Page(title, lead, (Section("blend", "Blend", (picture,)),))


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
    for metric, called in ((LOSS, "last loss"), (VALIDATION_LOSS, "last validation loss")):
        if metric in run.metrics:
            yield called, f"{run.metrics[metric].values[-1]:.4f}"


def _blend(runs: Sequence[RunFacts]) -> Iterator[Block]:
    yield SideBySide(
        tuple(
            Picture(
                whose(runs, run) + BLEND_CAPTION,
                blend_figure(run.curve, reached_step=run.reached_step),
            )
            for run in runs
        )
    )
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


def _losses(runs: Sequence[RunFacts]) -> Iterator[Block]:
    names = _drawn(runs)
    of_all = f" The {len(names)} corpora with the largest shares." if _is_cut(runs) else ""
    pictures = (
        (
            metric_figure(runs, [(LOSS, "training"), (VALIDATION_LOSS, "validation")], "loss"),
            "Loss of the blend, in training and in validation.",
        ),
        (
            corpus_metric_figure(runs, CORPUS_LOSS, names, "loss"),
            f"Training loss of each corpus.{of_all}",
        ),
        (
            corpus_metric_figure(runs, VALIDATION_LOSS, names, "validation loss"),
            f"Validation loss of each corpus.{of_all}",
        ),
    )
    found = [Picture(caption, figure) for figure, caption in pictures if figure is not None]
    yield from found
    yield from _without(runs, LOSS, "no losses")


def _waiting(runs: Sequence[RunFacts]) -> Iterator[Block]:
    pictures = (
        (
            metric_figure(runs, [(WAIT_SECONDS, "waiting")], "seconds"),
            "Time that the rank which logs waited for batches, since the step logged before.",
        ),
        (
            metric_figure(runs, [(SAMPLES_PER_SECOND, "samples")], "samples a second"),
            "Samples of all ranks for each second in training steps.",
        ),
    )
    yield from (Picture(caption, figure) for figure, caption in pictures if figure is not None)
    yield from _without(runs, WAIT_SECONDS, "no waiting")


def _without(runs: Sequence[RunFacts], metric: str, what: str) -> Iterator[Block]:
    for run in runs:
        if metric not in run.metrics:
            yield Paragraph(
                f"{run.name}: {what}, because no TensorBoard file below its folder has any. A run "
                f"writes them with metrics.enable_tensorboard = true."
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
            yield Samples(f"{whose(runs, run)}{name}", own)
        missing = [corpus.name for corpus in run.corpora if corpus.name not in names]
        if missing:
            more = f" and {len(missing) - 10:,} others" if len(missing) > 10 else ""
            yield Paragraph(f"{whose(runs, run)}None of {', '.join(missing[:10])}{more}.")


def _drawn(runs: Sequence[RunFacts]) -> list[str]:
    """The corpora that are drawn one by one: the largest shares of the first run, then others."""
    names = dict.fromkeys(corpus.name for run in runs for corpus in run.corpora)
    return list(names)[:MOST_CORPORA]


def _is_cut(runs: Sequence[RunFacts]) -> bool:
    return len({corpus.name for run in runs for corpus in run.corpora}) > MOST_CORPORA

"""Draw docs/pictures/*.svg: the worked example of the order, and the way of the data.

Usage: .venv/bin/python scripts/draw_pictures.py

The pictures have a ground of their own, so that they are legible on any page, and follow the
reader's choice of light or dark.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from blendtitan import BlendConfig, BlendedDataset, build_datasets
from blendtitan.config import SPLITS, split_fractions
from blendtitan.dataset.build import document_cuts
from blendtitan.storage.writer import ShardWriter

PICTURES = Path(__file__).parents[1] / "docs/pictures"

STYLE = """\
text { font: 14px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 12px; fill: #59636e }
.head { font-weight: 600 }
.token { font: 13px ui-monospace, monospace; text-anchor: middle }
.middle { text-anchor: middle }
.end { text-anchor: end }
.ground { fill: #ffffff; stroke: #d1d9e0 }
.box { fill: #ddf4ff; stroke: #54aeff }
.other { fill: #dafbe1; stroke: #4ac26b }
.pale { fill: #f6f8fa; stroke: #d1d9e0 }
.label { fill: none; stroke: #54aeff; stroke-dasharray: 3 2 }
.arrow { fill: none; stroke: #59636e; stroke-width: 1.5 }
.tip { fill: #59636e }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.small { fill: #b1bac4 }
.ground { fill: #0d1117; stroke: #3d444d }
.box { fill: #0c2d6b; stroke: #388bfd }
.other { fill: #033a16; stroke: #2ea043 }
.pale { fill: #161b22; stroke: #3d444d }
.label { stroke: #388bfd }
.arrow { stroke: #b1bac4 }
.tip { fill: #b1bac4 }
}
"""

Shapes = Iterator[str]


def picture(width: int, height: int, title: str, shapes: Shapes) -> str:
    """An SVG file."""
    ground = rectangle(0.5, 0.5, width - 1, height - 1, "ground", rounding=8)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" role="img" aria-label="{escape(title)}">',
            f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>",
            ground,
            *shapes,
            "</svg>\n",
        ]
    )


def rectangle(
    x: float, y: float, width: float, height: float, look: str, *, rounding: int = 3
) -> str:
    """A box with round corners."""
    return (
        f'<rect class="{look}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
        f'rx="{rounding}"/>'
    )


def text(x: float, y: float, content: object, look: str = "") -> str:
    """A line of text; ``y`` is where its letters stand."""
    return f'<text class="{look}" x="{x:g}" y="{y:g}">{escape(str(content))}</text>'


def arrow(*points: tuple[float, float]) -> str:
    """A line through points, with a tip at the last, which is reached to the right or down."""
    (before_x, _), (x, y) = points[-2:]
    tip = [(x, y), (x - 8, y - 4), (x - 8, y + 4)]
    if before_x == x:
        tip = [(x, y), (x - 4, y - 8), (x + 4, y - 8)]
    line = " ".join(f"{x:g},{y:g}" for x, y in points)
    ends = " ".join(f"{x:g},{y:g}" for x, y in tip)
    return f'<polyline class="arrow" points="{line}"/><polygon class="tip" points="{ends}"/>'


# The worked example: ten documents of three tokens, each a number twice and EOD.

SEQ_LEN = 5
SPLIT = "80,10,10"
EOD = 2
DOCUMENTS = [[number, number, EOD] for number in range(10, 20)]
CELL = 24
LINE = 30
LEFT = 96
"""Where tokens begin."""


def ten_documents() -> str:
    """The picture of the worked example, from the order itself."""
    right = LEFT + CELL * len(np.concatenate(DOCUMENTS))
    with tempfile.TemporaryDirectory() as folder:
        train = example(Path(folder))
        slots = range(2 * train.num_windows)
        shapes = [*row_of_documents(), *samples(train, slots, right)]
    height = 188 + LINE * (len(slots) + 2)
    title = "Ten documents: split, cut into windows, shuffled in two epochs"
    return picture(right + 110, height, title, iter(shapes))


def example(folder: Path) -> BlendedDataset:
    """The training split of the worked example."""
    with ShardWriter.create(folder / "ten", dtype=np.dtype("<u2")) as shard:
        for document in DOCUMENTS:
            shard.add_document(np.array(document))
    file_list = folder / "list.txt"
    file_list.write_text("1 ten")
    train = build_datasets(
        BlendConfig(data_file_list=file_list, seq_length=SEQ_LEN, eod_token_id=EOD, split=SPLIT)
    ).train
    assert isinstance(train, BlendedDataset)
    return train


def row_of_documents() -> Shapes:
    """The shard: its documents, their tokens, and the splits below them."""
    yield text(LEFT - 12, 52, "document", "end")
    yield text(LEFT - 12, 77, "tokens", "end")
    yield text(LEFT - 12, 112, "1. split", "end head")
    width = CELL * len(DOCUMENTS[0])
    for number, document in enumerate(DOCUMENTS):
        x = LEFT + number * width
        yield text(x + width / 2, 52, number, "middle small")
        for place, token in enumerate(document):
            look = "pale" if token == EOD else "box"
            yield rectangle(x + place * CELL + 1, 60, CELL - 2, 24, look)
            yield text(x + (place + 0.5) * CELL, 77, token, "token")
    cuts = document_cuts(len(DOCUMENTS), split_fractions(SPLIT))
    for name, start, stop in zip(SPLITS, cuts, cuts[1:], strict=False):
        x, end = LEFT + start * width, LEFT + stop * width
        yield rectangle(x + 1, 96, end - x - 2, 24, "other" if name == "train" else "pale")
        yield text((x + end) / 2, 113, name, "middle")
    yield text(LEFT, 28, "One shard of ten documents; each ends in EOD (2)", "head")


def samples(train: BlendedDataset, slots: range, right: int) -> Shapes:
    """A line for each slot: where its window lies in the row, with its tokens."""
    plan = train.plan(np.array(slots))
    y = 128
    for slot in slots:
        epoch, window = int(plan.places.epochs[slot]), int(plan.places.windows[slot])
        start = int(plan.places.starts[slot])
        if slot % train.num_windows == 0:
            y += LINE
            yield text(LEFT, y, epoch_title(epoch, train.num_windows, start, window), "head")
            y += LINE - 18
        yield from sample(train, slot, LEFT + start * CELL, y)
        yield text(LEFT - 12, y + 17, f"slot {slot}", "end")
        yield text(right + 12, y + 17, f"window {window}", "small")
        y += LINE
    yield text(LEFT, y + 17, "Solid: inputs. Dashed: the token that is only a label.", "small")


def epoch_title(epoch: int, num_windows: int, start: int, window: int) -> str:
    """What is seen in the lines of an epoch."""
    shift = start - window * SEQ_LEN
    moved = f"shifted by {shift} token{'s' * (shift != 1)}" if shift else "not shifted"
    return f"2. and 3. Epoch {epoch}: {num_windows} windows, {moved}, each once, shuffled"


def sample(train: BlendedDataset, slot: int, x: float, y: float) -> Shapes:
    """The tokens of a sample: inputs, and the last label."""
    taken = train[slot]
    yield rectangle(x + 1, y, SEQ_LEN * CELL - 2, 24, "box")
    yield rectangle(x + SEQ_LEN * CELL + 1, y, CELL - 2, 24, "label")
    for place, token in enumerate([*taken.input_ids, taken.labels[-1]]):
        yield text(x + (place + 0.5) * CELL, y + 17, token, "token")


# The way of the data.

BOX_WIDTH, BOX_HEIGHT, GAP = 140, 62, 26

PREPARED = [
    ("text", ".jsonl, .parquet", "files or URLs"),
    ("tokenize", "ids, EOD at the end", "prepare/, tokenizers/"),
    ("shards", ".bin and .idx", "storage/"),
    ("mix", "weights: file list", "prepare/"),
    ("catalog", "rank 0 reads,", "one broadcast"),
]
READ = [
    ("slot", "next of this rank", "order/cursor.py"),
    ("blend", "which corpus, draw", "order/blend.py"),
    ("shuffle", "which window", "order/permutation.py"),
    ("read", "one positioned read", "dataset/, storage/"),
    ("batch", "tensors, read ahead", "loader.py"),
    ("TorchTitan", "trains", "titan/"),
]


def data_flow() -> str:
    """The picture of the README."""
    width = 24 + len(READ) * (BOX_WIDTH + GAP) - GAP + 24
    title = "How data flows: prepared once, then read by arithmetic"
    return picture(width, 300, title, data_flow_shapes())


def data_flow_shapes() -> Shapes:
    """Two lines of boxes, and how the first serves the second."""
    top, bottom = 48, 196
    yield text(24, 32, "Once: from text to what a run names", "head")
    yield text(24, bottom - 16, "Every batch, on any rank: arithmetic, then one read", "head")
    yield from chain(PREPARED, top, "other")
    yield from chain(READ, bottom, "box")
    served = READ.index(next(box for box in READ if box[0] == "read"))
    x = box_x(served) + BOX_WIDTH / 2
    from_x = box_x(len(PREPARED) - 1) + BOX_WIDTH / 2
    middle = (top + BOX_HEIGHT + bottom) / 2 - 6
    yield arrow((from_x, top + BOX_HEIGHT), (from_x, middle), (x, middle), (x, bottom))
    yield text(from_x + 10, middle, "which shard, which bytes", "small")
    yield text(
        24,
        bottom + BOX_HEIGHT + 28,
        "Nothing is stored on the way from a slot to its bytes: slot 10^12 is found like slot 0.",
        "small",
    )


def chain(boxes: list[tuple[str, str, str]], y: float, look: str) -> Shapes:
    """Boxes from left to right with arrows between them."""
    for number, (name, *lines) in enumerate(boxes):
        x = box_x(number)
        yield rectangle(x, y, BOX_WIDTH, BOX_HEIGHT, look, rounding=6)
        yield text(x + BOX_WIDTH / 2, y + 20, name, "middle head")
        for place, line in enumerate(lines):
            yield text(x + BOX_WIDTH / 2, y + 38 + 16 * place, line, "middle small")
        if number:
            yield arrow((x - GAP, y + BOX_HEIGHT / 2), (x, y + BOX_HEIGHT / 2))


def box_x(number: int) -> int:
    """Where a box of a chain begins."""
    return 24 + number * (BOX_WIDTH + GAP)


DRAWN = {"ten_documents.svg": ten_documents, "data_flow.svg": data_flow}

if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, draw in DRAWN.items():
        (PICTURES / name).write_text(draw())

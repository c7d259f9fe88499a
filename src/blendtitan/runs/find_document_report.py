"""When a document is read, as a table and as JSON."""

from dataclasses import asdict
from typing import Any

from blendtitan.runs.find_document import Document
from blendtitan.tables import Table, number_table


def headline(document: Document) -> str:
    """The document, and how often it is read, in a sentence."""
    number = len(document.readings)
    return (
        f"{document.prefix}: document {document.document_id:,}, of {document.num_tokens:,} tokens "
        f"and the corpus {document.corpus!r}, is in {number:,} of the first "
        f"{document.stop_slot:,} samples."
    )


def document_table(document: Document) -> Table:
    """One line for each sample that holds some of the document."""
    table = number_table(
        *("step", "sample", "rank", "micro batch", "row"),
        *("slot", "epoch", "window", "tokens of the document"),
    )
    for reading in document.readings:
        place, window = reading.place, reading.window
        numbers = (place.step, place.sample, place.rank, place.micro_batch, place.row)
        table.add_row(
            *("" if number is None else f"{number:,}" for number in numbers),
            *(f"{window.slot:,}", f"{window.epoch:,}", f"{window.window:,}"),
            ", ".join(f"{first:,} to {stop:,}" for first, stop in reading.tokens),
        )
    return table


def document_json(document: Document) -> dict[str, Any]:
    """The same for programs. Ranges of tokens end before their second number."""
    return {
        "shard": document.prefix,
        "corpus": document.corpus,
        "document": document.document_id,
        "document_tokens": document.num_tokens,
        "stop_slot": document.stop_slot,
        "readings": [
            {
                "slot": reading.window.slot,
                **asdict(reading.place),
                "epoch": reading.window.epoch,
                "window": reading.window.window,
                "tokens": [list(span) for span in reading.tokens],
            }
            for reading in document.readings
        ],
    }

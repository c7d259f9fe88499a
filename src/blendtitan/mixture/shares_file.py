"""``shares.csv``: the blend of each run of a sweep."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from blendtitan.errors import ConfigError
from blendtitan.files import read_text
from blendtitan.mixture.blends import Shares

SHARES = "shares.csv"
"""Name of the file in the folder of a sweep."""


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as a CSV file; numbers as Python spells them, None as nothing."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def shares_text(runs: Sequence[str], corpora: Sequence[str], blends: Shares) -> str:
    """A header, and the shares of each run."""
    rows = ([run, *row] for run, row in zip(runs, blends.tolist(), strict=True))
    return csv_text([["run", *corpora], *rows])


def read_shares(folder: Path) -> dict[str, dict[str, float]]:
    """Share of each corpus, by run.

    Raises:
        ConfigError: The folder has no such file, or it cannot be used.
    """
    path = folder / SHARES
    if not path.is_file():
        raise ConfigError(
            f"{folder}: this folder has no {SHARES}. Name one that `blendtitan sweep` has written."
        )
    try:
        (_, *corpora), *rows = [*csv.reader(io.StringIO(read_text(path)))] or [[""]]
        shares = {
            run: {name: float(share) for name, share in zip(corpora, row, strict=True)}
            for run, *row in rows
        }
    except ValueError as error:
        raise ConfigError(
            f"{path}: cannot be used ({error}), expected a run and a share of each corpus in every "
            f"line. Write it again by the same `blendtitan sweep` as before."
        ) from error
    if not shares:
        raise ConfigError(f"{path}: found no run in it, expected one at least")
    return shares

"""How far tokenising is, for people who look at a terminal or at a log."""

import io
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from blendtitan.prepare import progress
from blendtitan.prepare.progress import Totals, short, shown_progress


def test_without_a_terminal_it_is_a_line_at_most_every_30_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([0.0, 10.0, 31.0, 40.0, 62.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    totals: Iterator[Totals] = iter([(310_000_000, 1_000, 2_000_000), (620_000_000, 2_000, 4_000)])
    lines: list[str] = []
    with shown_progress(1_240_000_000, lines.append) as show:
        for _ in range(4):
            show(totals)

    assert lines == [
        "tokenised 310.0 MB of 1.2 GB (10.0 MB/s): 1,000 documents, 2,000,000 tokens; 0:01:33 left",
        "tokenised 620.0 MB of 1.2 GB (10.0 MB/s): 2,000 documents, 4,000 tokens; 0:01:02 left",
    ]


@pytest.mark.parametrize("num_bytes", [1, 10**6, 999 * 10**12])
def test_on_a_terminal_the_bar_fits_80_columns(
    monkeypatch: pytest.MonkeyPatch, num_bytes: int
) -> None:
    screen = io.StringIO()

    def console(**_: object) -> Console:
        return Console(file=screen, force_terminal=True, width=200, color_system=None)

    monkeypatch.setattr(progress, "Console", console)
    with shown_progress(num_bytes, print) as show:
        show(iter([(num_bytes // 2, 999 * 10**9, 999 * 10**12)]))
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).splitlines()

    assert any("docs" in line and "tokens" in line for line in lines)
    assert max(len(line.strip()) for line in lines) <= 80


@given(st.integers(0, 10**18))
def test_a_short_number_has_at_most_7_characters(number: int) -> None:
    assert len(short(number)) <= 7
    match = re.fullmatch(r"([\d.]+)([kMBTQ]?)", short(number))
    assert match
    value, suffix = match.groups()
    scale = 1000 ** (" kMBTQ".index(suffix) if suffix else 0)
    assert abs(float(value) * scale - number) <= 0.05 * scale

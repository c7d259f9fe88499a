"""Comparison of a step with earlier steps: counts, and planted anomalies that must be found."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from blendtitan.cli import main
from blendtitan.errors import ConfigError
from blendtitan.runs.compare_step import compare_step
from blendtitan.runs.explain import Explained, explain_slots, select_step
from blendtitan.runs.open import OpenRun, open_run
from tests.conftest import EOD, WriteShard
from tests.runs.conftest import WriteRun
from tests.runs.test_explain import CORPORA, changed, tokens_of

__all__ = ["changed"]

# In the order of the files, so that planted documents are read in place.
IN_ORDER = {"shuffle_sample_in_corpus": False, "split": "1"}


def steps(source: OpenRun, numbers: range) -> list[Explained]:
    slots = [slot for step in numbers for slot in select_step(source, step)]
    return explain_slots(source, slots, with_texts=False)


def test_corpora_and_documents_are_counted(write_run: WriteRun) -> None:
    source = open_run(write_run(CORPORA))
    found = compare_step(source, 9, window=5)
    now, before = steps(source, range(9, 10)), steps(source, range(4, 9))

    assert (found.step, found.first_before) == (9, 4)
    for corpus in found.corpora:
        own = [s for s in now if s.window.corpus == corpus.name]
        own_before = [s for s in before if s.window.corpus == corpus.name]
        assert corpus.samples == len(own)
        assert (corpus.share, corpus.share_before) == (len(own) / 8, len(own_before) / 40)
        for samples, lens in ((own, corpus.lens), (own_before, corpus.lens_before)):
            documents = [d.document_tokens for s in samples for p in s.parts for d in p.documents]
            if not documents:
                assert lens is None
                continue
            assert lens is not None
            assert lens.longest == max(documents)
            assert lens.median == sorted(documents)[(len(documents) - 1) // 2]
            assert lens.per_sample == len(documents) / len(samples)


def test_tokens_that_were_rare_before_are_listed(write_run: WriteRun) -> None:
    source = open_run(write_run(CORPORA))
    found = compare_step(source, 9, window=8)
    now, before = (
        Counter(token for sample in samples for token in tokens_of(source, sample))
        for samples in (steps(source, range(9, 10)), steps(source, range(1, 9)))
    )

    assert found.first_before == 1
    assert len(found.tokens) == 15
    for token in found.tokens:
        assert token.count == now[token.token]
        assert token.text == f" w{token.token}"  # within a text
        assert token.per_million == pytest.approx(now[token.token] / now.total() * 1e6)
        assert token.per_million_before == pytest.approx(before[token.token] / before.total() * 1e6)
        assert token.per_million > token.per_million_before
    assert EOD not in {token.token for token in found.tokens}


def test_the_cause_of_a_loss_spike_is_found(write_run: WriteRun, write_shard: WriteShard) -> None:
    """A document that repeats one token, and a duplicated document."""
    path = write_run({"web": (1, [900])}, blendcorpus=IN_ORDER)
    rng = np.random.default_rng(0)
    documents = [[*rng.integers(3, 900, 7).tolist(), EOD] for _ in range(100)]
    documents[33] = [777] * 7 + [EOD]
    documents[37] = documents[35]
    write_shard("web/web_0", documents)
    found = compare_step(open_run(path), 5, window=3)

    assert found.samples[0].slot == 33
    assert (found.samples[0].token, found.samples[0].text) == (777, " w777")
    assert found.samples[0].token_share == pytest.approx(7 / 9)
    assert found.tokens[0].token == 777
    assert found.twins == ()
    # A window has a token more than its document: with the same next token it is the same.
    documents[38][0] = documents[36][0]
    write_shard("web/web_0", documents)
    assert compare_step(open_run(path), 5, window=3).twins == ((35, 37),)


def test_steps_of_a_changed_run_are_compared_over_its_phases(
    changed: tuple[Path, list[list[int]]],
) -> None:
    """From windows of 8 tokens to windows of 12."""
    source = open_run(changed[0])
    found = compare_step(source, 61, window=4)

    assert sum(corpus.samples for corpus in found.corpora) == 4
    assert found.first_before == 57


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--around", "1"], "expected at least 2: step 1 has no step before it"),
        (["--around", "5", "--window", "0"], "window is 0, expected a whole number of at least 1"),
        (["--step", "5", "--window", "3"], "expected --around with it"),
    ],
)
def test_invalid_comparisons_are_refused(
    write_run: WriteRun,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    assert main(["explain", str(write_run(CORPORA)), *arguments]) == 1
    assert expected in capsys.readouterr().err


def test_without_the_data_nothing_is_compared(changed: tuple[Path, list[list[int]]]) -> None:
    with pytest.raises(ConfigError, match="comparing steps needs the data, which is not available"):
        compare_step(open_run(None, changed[0]), 5)


def test_a_missing_shard_is_named(
    changed: tuple[Path, list[list[int]]], write_shard: WriteShard
) -> None:
    write_shard("web/web_0", [[5, 6, EOD]] * 100)

    with pytest.raises(ConfigError, match="was read from the shard web/web_0, which has other"):
        compare_step(open_run(changed[0]), 5)


def test_the_command_prints_its_findings(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(write_run(CORPORA)), "--around", "9", "--window", "4"]

    assert main(command) == 0
    sections = capsys.readouterr().out.split("\n\n")
    assert sections[1] == "Step 9 compared with the steps before it, 5 to 8."
    assert [line.split()[0] for line in sections[2].splitlines()] == [
        "corpus", "books", "code", "web"
    ]  # fmt: skip
    assert sections[3] == "No two samples of these steps have the same tokens."
    assert len(sections) == 8
    assert sections[7].splitlines()[0] == "[[blendcorpus.skip]]"
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"corpora", "twins", "tokens", "samples", "step", "first_before"} <= set(found)


def test_it_ends_with_the_lines_that_leave_the_step_out(write_run: WriteRun) -> None:
    """Pasted at the end of the configuration, they leave out the step's slots."""
    path = write_run(CORPORA)
    lines = list(map(str, compare_step(open_run(path), 4, window=2).lines()))
    path.write_text(path.read_text() + "\n" + "\n".join(lines[-3:]))

    assert open_run(path).slots.skipped == ((24, 32, 4, 4),)


def test_in_the_originals_order_no_skip_is_advised(write_run: WriteRun, tmp_path: Path) -> None:
    """It does not support skips."""
    order = {"order": "blendcorpus", "data_cache_path": str(tmp_path / "cache")}
    found = compare_step(open_run(write_run(CORPORA, blendcorpus=order)), 4, window=2)

    assert "skip" not in "\n".join(map(str, found.lines()))
    assert "skip" not in "".join(found.json())

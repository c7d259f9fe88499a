"""Names and texts that would control a terminal are spelled out; everything else stays as it is."""

import logging
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.errors import BlendTitanError, ShardError
from blendtitan.visible import (
    Lines,
    joined,
    quietly,
    spell_out_logs,
    visible,
    visible_lines,
    visible_logger,
)

HOSTILE = {
    "[/x]": "[/x]",
    "[web]": "[web]",
    "[bold red]x": "[bold red]x",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x1b[31mred": r"\x1b[31mred",
    "\x9b31mred": r"\x9b31mred",
    "\u202edesrever": r"\u202edesrever",
    "over\rwritten": r"over\rwritten",
    "\udcff": r"\udcff",
    "back\\": "back\\",
}
"""Names, and how they are shown."""


def is_safe(text: str) -> bool:
    """Whether printing ``text`` does nothing but show it, line by line."""
    return all(char == "\n" or (char.isprintable() and char != "\u202e") for char in text)


@pytest.mark.parametrize("name", [*HOSTILE, "two\nlines", "\t"])
def test_control_characters_are_escaped(name: str) -> None:
    assert visible(name) == HOSTILE.get(name, {"two\nlines": r"two\nlines", "\t": r"\t"}.get(name))


@pytest.mark.parametrize(
    "name",
    [
        "Zo\u00eb",
        "\u4e2d\u6587",
        "\u0645\u06cc\u200c\u062e",
        "\U0001f469\u200d\U0001f4bb",
        "a b",
        "\\x1b",
    ],
)
def test_ordinary_names_in_any_language_stay_as_they_are(name: str) -> None:
    """Joiners too, which emoji and Persian are written with."""
    assert visible(name) == name


@given(st.text())
def test_spelling_out_twice_changes_nothing_more(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    assert visible(visible_lines(text)) == visible_lines(text)


def test_an_error_keeps_its_lines_apart_and_those_of_names_together() -> None:
    """No name can add a line of its own to a message, nor to the log."""
    error = ShardError("web\x1b[2J: bad", "a\nblendtitan: all is well", "2 shards are bad")

    assert str(error).splitlines() == [
        r"web\x1b[2J: bad",
        r"a\nblendtitan: all is well",
        "2 shards are bad",
    ]
    assert str(BlendTitanError(f"in turn: {error}")).count("\n") == 0


def test_a_logger_of_ours_spells_out_names_but_keeps_tables(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever handles its records: a trainer that is not ours has handlers of its own."""
    logger = visible_logger("blendtitan.tests.visible")
    table = joined(["corpus", "web"])
    logger.warning("%s of %d:\n%s", "we\nb\x1b[31m", 3, table)
    logger.warning("%(name)s", {"name": "\u202e"})

    assert caplog.messages == ["we\\nb\\x1b[31m of 3:\ncorpus\nweb", r"\u202e"]


def test_records_of_other_packages_keep_their_colours_and_lose_other_sequences(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TorchTitan colours its metrics, and formats messages before they are logged."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    spell_out_logs()
    try:
        logging.getLogger("torchtitan.tests").warning("\x1b[32mloss\x1b[0m in %s", "\x1b]0;x\x07")
    finally:
        caplog.handler.filters.clear()

    assert caplog.messages == ["\x1b[32mloss\x1b[0m in \\x1b]0;x\\x07"]


def test_text_that_is_lines_stays_lines() -> None:
    assert isinstance(visible_lines("a\nb"), Lines)
    assert visible(visible_lines("a\nb")) == "a\nb"


def test_a_quiet_block_silences_our_warnings_in_this_thread_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another thread, or another package, has nothing to do with what the block does."""
    ours, foreign = visible_logger("blendtitan.of_a_test"), logging.getLogger("another.package")
    with quietly():
        ours.warning("hidden")
        ours.error("shown")
        foreign.warning("foreign")
        thread = threading.Thread(target=ours.warning, args=("of a thread",))
        thread.start()
        thread.join()
    ours.warning("after")

    assert caplog.messages == ["shown", "foreign", "of a thread", "after"]

"""The reference of the commands: made from the source, and up to date."""

import shlex
from runpy import run_path

import pytest

from blendtitan import cli
from tests.test_docs import ROOT

SCRIPT = ROOT / "scripts/write_commands_page.py"


def test_the_commands_page_is_made_from_the_source() -> None:
    """Every command, manual and argument; ``scripts/write_commands_page.py`` writes it."""
    script = run_path(str(SCRIPT))

    assert script["PAGE"].read_text() == script["commands_page"]()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_examples_of_a_command_are_accepted(name: str) -> None:
    """As far as their arguments go; what they do with files is shown where pages use them."""
    _, *lines = cli.COMMANDS[name].texts()[1].replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if line.strip()]

    assert commands
    for program, *arguments in commands:
        assert program == "blendtitan"
        assert cli.parser().parse_args(arguments).command == name

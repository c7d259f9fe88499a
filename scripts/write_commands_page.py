"""Write docs/commands.md from the commands.

Usage: .venv/bin/python scripts/write_commands_page.py
"""

import argparse
import textwrap
from pathlib import Path

from blendtitan.cli import COMMANDS

PAGE = Path(__file__).parents[1] / "docs/commands.md"

HEAD = """\
# Commands

Every command, as `blendtitan COMMAND --help` shows it. This page is generated from the source. For
examples that fit together, see the [quick start](quickstart.md), [Preparing data](preparing.md),
[Several nodes](launching.md) and [Resume](resume.md).

The exit status is 0 after success, 1 after an error, 2 for wrong arguments and 130 after an
interrupt. Results go to standard output; errors and progress go to standard error.
"""


def commands_page() -> str:
    """The whole page."""
    rows = [f"| [{name}](#{name}) | {command.summary} |" for name, command in COMMANDS.items()]
    contents = "\n".join(["| command | what it does |", "|---|---|", *rows, ""])
    return "\n".join([HEAD, contents, *(_section(name) for name in COMMANDS)])


def _section(name: str) -> str:
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(add_help=False)
    for add in command.arguments:
        add(parser)
    manual, example = command.texts()
    rows = [_row(action) for action in parser._actions]
    example = example.partition("\n")[2]
    return "\n".join(
        [
            f"## {name}\n",
            f"    blendtitan {name} {_usage(parser)}\n",
            f"```text\n{manual.strip()}\n```\n",
            "| argument | | meaning |\n|---|---|---|",
            *rows,
            "",
            textwrap.indent(textwrap.dedent(example), "    "),
        ]
    )


def _usage(parser: argparse.ArgumentParser) -> str:
    """What is given first; argparse's own text is another in every release of Python."""
    groups = parser._mutually_exclusive_groups
    grouped = {action for group in groups for action in group._group_actions}
    shown = [a for a in parser._actions if _is_needed(a) or not a.option_strings]
    parts = [_given(a) if _is_needed(a) else f"[{_given(a)}]" for a in shown if a not in grouped]
    parts += [
        f"({' | '.join(_given(action) for action in group._group_actions)})"
        for group in groups
        if group.required
    ]
    optional = any(a not in shown and a not in grouped for a in parser._actions)
    return " ".join([*parts, *(["[OPTIONS]"] if optional else [])])


def _is_needed(action: argparse.Action) -> bool:
    # argparse calls a positional argument of any number of values required, but accepts none.
    return action.required and action.nargs != "*"


def _given(action: argparse.Action) -> str:
    value = _value(action)
    return " ".join([*action.option_strings[:1], *([value] if value else [])])


def _value(action: argparse.Action) -> str:
    """What an argument takes: nothing, one of some words, one value or several."""
    if action.nargs == 0:
        return ""
    words = "|".join(map(str, action.choices or ()))
    names = action.metavar or action.dest.upper()
    value = words or (names if isinstance(names, str) else " ".join(names))
    return f"{value} ..." if action.nargs in ("+", "*") else value


def _row(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings)
    given = f"{name} {_value(action)}".strip()
    meaning = (action.help or "") % vars(action)
    needed = "needed" if _is_needed(action) else ""
    cells = [f"`{given}`", needed, meaning]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(commands_page())

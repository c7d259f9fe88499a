"""The command line: finds the command and runs it; errors become one message and a status."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from blendtitan.commands import (
    audit,
    convert,
    demo,
    explain,
    merge,
    mix,
    plan,
    repair,
    report,
    stats,
    sweep,
    tokenize,
    verify,
)
from blendtitan.errors import BlendTitanError
from blendtitan.terminal import complain
from blendtitan.visible import spell_out_logs, visible_lines

COMMANDS = {
    "tokenize": tokenize,
    "stats": stats,
    "verify": verify,
    "repair": repair,
    "merge": merge,
    "convert": convert,
    "mix": mix,
    "plan": plan,
    "explain": explain,
    "report": report,
    "audit": audit,
    "sweep": sweep,
    "demo": demo,
}

PRINTING = {"stats", "plan", "explain", "audit"}
"""Commands that do nothing but print, and may end when nobody reads on, as with ``| head``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 after an error, 2 for wrong arguments."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    spell_out_logs()
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError as error:
        if options.command not in PRINTING:
            return _failed(options.command, error)
        # Nobody reads on. What is still to be written at the end would fail like that again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1  # as rich does for tables
    except (BlendTitanError, OSError) as error:
        return _failed(options.command, error)
    except KeyboardInterrupt:
        complain(f"blendtitan {options.command}: interrupted")
        return 130
    return 0


def _failed(command: str, error: Exception) -> int:
    complain(visible_lines(f"blendtitan {command}: {error}"))
    return 1


class _Parser(argparse.ArgumentParser):
    """Shows arguments that it does not know in a form that is safe to print."""

    def error(self, message: str) -> NoReturn:
        super().error(visible_lines(message))


def parser() -> argparse.ArgumentParser:
    """The parser of the command line. Parsed options know which function runs the command."""
    whole = _Parser(
        prog="blendtitan",
        description="Prepare data for training on a blend of corpora, and look into runs.",
        epilog="Each command has a manual of its own: blendtitan COMMAND --help",
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        added = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.MANUAL,
            epilog=command.EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    return whole


if __name__ == "__main__":
    sys.exit(main())

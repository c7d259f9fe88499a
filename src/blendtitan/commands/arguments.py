"""A command, and the arguments that several commands share."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blendtitan.config import check_is_path
from blendtitan.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What the command line needs to know of a command."""

    summary: str
    manual: str
    example: str
    add_arguments: Callable[["Arguments"], None]
    run: Callable[[argparse.Namespace], None]


class Arguments:
    """Adds arguments to a parser, or to a group of arguments that exclude each other."""

    def __init__(self, parser: argparse._ActionsContainer) -> None:
        self.parser = parser

    def add(self, name: str, help: str, **more: Any) -> None:
        """Add an argument of any kind."""
        self.parser.add_argument(name, help=help, **more)

    def path(self, name: str, metavar: str, help: str, **more: Any) -> None:
        """Add a path on this machine."""
        self.add(name, help, metavar=metavar, type=local_path, **more)

    def number(self, name: str, metavar: str, help: str, **more: Any) -> None:
        """Add a number; a whole number unless ``type`` says otherwise."""
        self.add(name, help, **{"metavar": metavar, "type": int} | more)

    def flag(self, name: str, help: str) -> None:
        """Add an option without a value."""
        self.add(name, help, action="store_true")

    def one_of(self, *, required: bool = False) -> "Arguments":
        """A group of which at most one argument may be given, or exactly one."""
        return Arguments(self.parser.add_mutually_exclusive_group(required=required))

    def shards(self) -> None:
        """Add the shards that a command reads."""
        self.path("inputs", "INPUT", "folder, shard prefix or file list", nargs="+")

    def run(self, **more: Any) -> None:
        """Add the run that a command reads."""
        self.path("config", "CONFIG", "TOML file of a run, or its folder", **more)

    def ranks(self) -> None:
        """Add the ranks of a run."""
        why = "data-parallel ranks, where training.global_batch_size is not set"
        self.number("--ranks", "N", why)

    def json(self, instead_of: str = "a table") -> None:
        """Add ``--json``."""
        self.flag("--json", f"print JSON in place of {instead_of}")


def local_path(text: str) -> Path:
    """The path that an argument gives.

    A URL is an error, not a folder named ``s3:``; so is an empty text, which would be the current
    folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("the value is empty, expected a path")
    try:
        check_is_path("the value", text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)

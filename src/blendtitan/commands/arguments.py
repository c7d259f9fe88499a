"""Declaration of commands: a summary, arguments, and the function to call."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from blendtitan.config import check_is_path
from blendtitan.errors import ConfigError
from blendtitan.files import path_of, url_of

Add = Callable[[argparse._ActionsContainer], object]
"""Adds an argument, or a group of arguments, to a parser."""


Run = Callable[[argparse.Namespace], None]
"""Runs a command with its parsed options."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command; its manual and its example are in ``manuals/NAME.txt``."""

    name: str
    summary: str
    arguments: tuple[Add, ...]
    run: Run

    def texts(self) -> tuple[str, str]:
        """The manual and the example."""
        text = (
            files("blendtitan.commands")
            .joinpath(f"manuals/{self.name}.txt")
            .read_text(encoding="utf-8")
        )
        manual, heading, example = text.partition("example:\n")
        return manual, heading + example


COMMANDS: dict[str, Command] = {}
"""All commands by name, once their modules are imported."""


def command(name: str, summary: str, *arguments: Add) -> Callable[[Run], Run]:
    """Declare the decorated function as a command."""

    def declared(run: Run) -> Run:
        COMMANDS[name] = Command(name, summary, arguments, run)
        return run

    return declared


def local_path(text: str) -> Path:
    """The path of an argument.

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


def data_path(text: str) -> Path:
    """The path or URL of shards, or of a list of them."""
    return path_of(text) if url_of(text) else local_path(text)


def run_path(text: str) -> Path:
    """The path of a run; of a run folder that ``init`` created, the output folder in it."""
    from blendtitan.runs.run_folder import CONFIG, DATA, OUTPUTS

    folder = local_path(text)
    has_begun = (folder / DATA).is_file() and (folder / OUTPUTS / CONFIG).is_file()
    return folder / OUTPUTS if has_begun else folder


def argument(name: str, help: str, **more: Any) -> Add:
    """An argument of any kind."""
    return lambda parser: parser.add_argument(name, help=help, **more)


def path(name: str, metavar: str, help: str, **more: Any) -> Add:
    """A path on this machine."""
    return argument(name, help, **{"metavar": metavar, "type": local_path} | more)


def number(name: str, metavar: str, help: str, **more: Any) -> Add:
    """A number; a whole number unless ``type`` is given."""
    return argument(name, help, **{"metavar": metavar, "type": int} | more)


def names(name: str, help: str) -> Add:
    """Names, separated by commas."""
    return argument(
        name, help, metavar="NAMES", type=lambda text: tuple(text.split(",")), default=()
    )


def flag(name: str, help: str) -> Add:
    """An option without a value."""
    return argument(name, help, action="store_true")


def one_of(*arguments: Add, required: bool = False) -> Add:
    """Mutually exclusive arguments; with ``required``, exactly one must be given."""

    def add(parser: argparse._ActionsContainer) -> None:
        group = parser.add_mutually_exclusive_group(required=required)
        for each in arguments:
            each(group)

    return add


def shards(nargs: str) -> Add:
    """The shards that a command reads."""
    help = "folder, shard prefix or file list; path or URL"
    return path("inputs", "INPUT", help, nargs=nargs, type=data_path)


SHARDS = shards("+")
LOCAL_SHARDS = path("inputs", "INPUT", "folder, shard prefix or file list", nargs="+")
RANKS = number("--ranks", "N", "data-parallel ranks, if training.global_batch_size is not set")


def run_config(**more: Any) -> Add:
    """The run that a command reads."""
    return path("config", "CONFIG", "TOML file of a run, or its folder", **more)


def json_flag(instead_of: str = "a table") -> Add:
    """The flag ``--json``."""
    return flag("--json", f"print JSON instead of {instead_of}")

"""The only module that prints. Names and texts are made visible on the way."""

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from blendtitan.visible import joined

if TYPE_CHECKING:
    from blendtitan.tables import Table


def say(*lines: str) -> None:
    """Print lines to stdout."""
    print(joined(lines))


def say_json(value: Any) -> None:
    """Print JSON to stdout: ASCII, without control characters other than line breaks."""
    print(json.dumps(value, indent=2).replace("\x7f", r"\u007f"))


def print_result(
    as_json: bool,
    for_programs: Callable[[], Any],
    for_people: Callable[[], "Iterable[str | Table]"],
) -> None:
    """Print a result as JSON, or its lines and tables one after the other."""
    if as_json:
        say_json(for_programs())
        return
    from blendtitan.tables import show

    for part in for_people():
        if isinstance(part, str):
            say(part)
        else:
            show(part)


def complain(*lines: str) -> None:
    """Print lines to stderr."""
    print(joined(lines), file=sys.stderr)

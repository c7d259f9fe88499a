"""The only module that prints. Names and texts are made visible on the way."""

import json
import sys
from typing import Any

from blendtitan.visible import joined


def say(*lines: str) -> None:
    """Print lines to stdout."""
    print(joined(lines))


def say_json(value: Any) -> None:
    """Print JSON to stdout; ASCII, without any control character but line breaks."""
    print(json.dumps(value, indent=2).replace("\x7f", r"\u007f"))


def complain(*lines: str) -> None:
    """Print lines to stderr."""
    print(joined(lines), file=sys.stderr)

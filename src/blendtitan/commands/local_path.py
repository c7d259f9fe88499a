"""The type of arguments that are paths of this machine."""

import argparse
from pathlib import Path

from blendtitan.config import check_is_path
from blendtitan.errors import ConfigError


def local_path(text: str) -> Path:
    """The path that an argument gives; a URL is an error, not a folder named ``s3:``.

    So is an empty text, which would be the current folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("the value is empty, expected a path")
    try:
        check_is_path("the value", text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)

"""The commands: for each one its arguments, and the calls that it makes.

A command imports what it calls when it runs, so that ``--help`` answers at once.
"""

from blendtitan.commands import runs, shards, text
from blendtitan.commands.arguments import COMMANDS

__all__ = ["COMMANDS", "runs", "shards", "text"]

"""The commands: the arguments and the calls of each.

A command imports its modules when it runs, so that ``--help`` answers at once.
"""

from blendtitan.commands import moving, runs, shards, start, text
from blendtitan.commands.arguments import COMMANDS

__all__ = ["COMMANDS", "moving", "runs", "shards", "start", "text"]

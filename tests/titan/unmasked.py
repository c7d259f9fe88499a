"""Trains on a CPU with balanced steps, which need masks that attention on a CPU does not have.

Documents attend to each other then. Which rows a step has, and the sum of their gradients, are the
same with any attention.
"""

import os

from tests.titan import launched


def train(*arguments: str) -> None:
    """What each rank does."""
    from blendtitan.titan import masking

    masking.check_masks = lambda *_: None
    launched.train(*arguments)


def train_to_death(*arguments: str) -> None:
    """The same, killed by SIGKILL in step 5."""
    os.environ["DIE_AT"] = "5"
    train(*arguments)

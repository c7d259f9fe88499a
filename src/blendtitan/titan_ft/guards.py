"""Guards of a replica: they look for a signal before the replicas agree on who takes part.

Later, the loader is where the replica reads, which is no place to save.
"""

import time
from typing import NoReturn

from blendtitan.stop_signals import STOP
from blendtitan.titan.guards import Guards, StoppedRun
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


class ReplicaGuards(Guards):
    """The trainer itself calls ``before_step``, once for all attempts at a step."""

    def __enter__(self) -> None:
        pass

    def _stop(self) -> NoReturn:
        """End the run. The replica that leads saves a checkpoint before."""
        if self._trainer.checkpointer.leads:  # pyright: ignore[reportAttributeAccessIssue]
            super()._stop()
        logger.warning(
            "%s: ends. The replica that leads saves the checkpoints.",
            STOP.received
            or ("the wall time ends" if time.time() >= self._end else "another rank is to end"),
        )
        raise StoppedRun

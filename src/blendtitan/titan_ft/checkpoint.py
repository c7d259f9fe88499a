"""Checkpoints of a fault-tolerant job: the first of the replicas that take part saves."""

from dataclasses import dataclass

from blendtitan.titan.checkpoint import BlendCheckpointManager


class ReplicaCheckpointManager(BlendCheckpointManager):
    """Loads checkpoints on every replica, and saves them on the one that leads."""

    @dataclass(kw_only=True, slots=True)
    class Config(BlendCheckpointManager.Config):
        """``[checkpoint]``."""

    leads = False
    """Whether this replica saves the next checkpoint."""

    def _should_save(self, curr_step: int, last_step: bool = False) -> bool:
        return self.leads and super()._should_save(curr_step, last_step)

"""Guards of a replica: they look for a signal before the replicas agree on who takes part.

After that, the loader stands within a step, where no checkpoint can be saved.
"""

from blendtitan.titan.guards import Guards


class ReplicaGuards(Guards):
    """The trainer itself calls ``before_step``, once for all attempts at a later step."""

    def __enter__(self) -> None:
        pass

    def after_step(self) -> None:
        """See ``Guards``. Within a round, nothing can be saved."""
        if not self._trainer.is_in_round:  # pyright: ignore[reportAttributeAccessIssue]
            super().after_step()

"""Guards of a replica: they look for a signal before the replicas agree on who takes part.

After that, the loader stands within a step, where no checkpoint can be saved.
"""

from typing import NoReturn

from blendtitan.titan.guards import Guards


class ReplicaGuards(Guards):
    """The trainer itself calls ``before_step``, once for all attempts at a later step."""

    def __enter__(self) -> None:
        pass

    def after_step(self) -> None:
        """See ``Guards``. Within a round, nothing can be saved."""
        if not self._trainer.is_in_round:  # pyright: ignore[reportAttributeAccessIssue]
            super().after_step()

    def reason_to_end(self) -> int:
        """Why this rank asks to end the run, as ``end_waiting`` takes it; 0 if it does not."""
        return self._reason()

    def end_waiting(self, reason: int) -> NoReturn:
        """End the run, on all ranks, while it waits for other replicas before a step."""
        self._trainer.step -= 1  # the step of the checkpoint
        self._stop(reason)

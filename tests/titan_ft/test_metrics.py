"""The replica that leads logs for all, into files that readers join."""

from torchtitan.components.metrics import BaseLogger

from blendtitan.titan_ft.metrics import LeadLogger


class Kept(BaseLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.is_closed = False

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Keep the step."""
        self.steps.append(step)

    def close(self) -> None:
        """Note the end."""
        self.is_closed = True


def test_each_time_a_replica_leads_it_opens_other_files() -> None:
    """Their names begin with the time, so that the later ones of two replicas count."""
    made: list[Kept] = []
    logger = LeadLogger(lambda: made.append(Kept()) or made[-1])
    for step, leads in enumerate([False, True, True, False, True], 1):
        logger.leads = leads
        logger.log({"loss": 1.0}, step)

    assert [each.steps for each in made] == [[2, 3], [5]]
    assert [each.is_closed for each in made] == [True, False]
    logger.close()
    assert made[1].is_closed

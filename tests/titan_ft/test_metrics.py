"""The replica that leads logs for all, into files that readers join."""

from pathlib import Path

from torchtitan.components.metrics import BaseLogger, TensorBoardLogger

from blendtitan.runs.scalars import read_scalars
from blendtitan.titan.metrics import LateLogger
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


def test_what_is_logged_is_on_disk_at_once(tmp_path: Path) -> None:
    """The process may be killed before its next step."""
    logger = LeadLogger(lambda: LateLogger(lambda: TensorBoardLogger(str(tmp_path))))
    logger.leads = True
    logger.log({"loss": 1.0}, 7)

    assert read_scalars(tmp_path)["loss"].steps.tolist() == [7]
    logger.close()

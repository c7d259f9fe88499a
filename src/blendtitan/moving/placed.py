"""The state of a loader at a stated sample, for a run that another loader has fed so far."""

from pathlib import Path

from blendtitan.batch_schedule import BatchStage, saved_schedule
from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError
from blendtitan.history.removals import removed_from
from blendtitan.original.dataset import OriginalDataset
from blendtitan.runs.open import data_of_run, read_run
from blendtitan.state import encode_state


def placed_state(config: Path, *, step: int, sample: int) -> dict[str, str]:
    """The state with which a run continues after ``step`` steps with a sample of its order.

    Args:
        config: TOML file of the run.
        step: Steps that the model was trained for with another loader.
        sample: The first sample to read, from 0 on.

    Raises:
        ConfigError: There is no such sample, or the run has segments, whose steps would be unclear.
    """
    check_at_least("--from-sample", sample, 0)
    run = read_run(config)
    if run.segments:
        raise ConfigError(
            f"{run.path}: has [[blendcorpus.segment]], whose steps would count from the start of "
            f"the order, not from step {step:,}. Leave the segments out here. After the first "
            f'checkpoint, add them with blendcorpus.on_change = "new_segment".'
        )
    dataset = data_of_run(run).train
    if isinstance(dataset, OriginalDataset):
        dataset.draws_before(sample + run.global_batch_size)  # raises beyond the last sample
    dataset = removed_from(dataset, sample)
    size = run.global_batch_size
    schedule = [BatchStage(global_batch_size=size)]
    if step and sample != step * size:
        schedule.append(BatchStage(step=step, consumed_samples=sample, global_batch_size=size))
    return encode_state(dataset, sample, more=saved_schedule(tuple(schedule)))

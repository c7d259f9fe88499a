"""The data of a run that goes on from its latest checkpoint, as ``blendtitan train`` does."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from blendtitan.batch_schedule import consumed_at, schedule_of_state, with_jumps
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import BlendTitanError, ConfigError, ResumeError
from blendtitan.history.run import phases_of, with_skips
from blendtitan.runs.checkpoints import StoredState, change_after, latest_state
from blendtitan.runs.open import RunConfig, Values
from blendtitan.settings.batch_changes import resumed
from blendtitan.settings.skips import placed_skips
from blendtitan.state import parse_state, resume


def checkpoint_folder(values: Values) -> Path:
    """The folder of a run's checkpoints."""
    return Path(values["job.dump_folder"], values["checkpoint.folder"])


def usable_state(folder: Path) -> StoredState | None:
    """The latest checkpoint of a folder; None if none has a state, or if a later one is damaged."""
    stored = None
    with suppress(BlendTitanError, OSError):
        stored = latest_state(folder)
    return None if stored is None or stored.state_dict is None or stored.note else stored


def state_to_resume(values: Values, folder: Path) -> StoredState | None:
    """The checkpoint from which ``train`` would go on; without its state if it is damaged.

    Args:
        values: Of all keys.
        folder: The folder of the configuration, which is the run's output folder if the run was
            moved there. Then it holds the checkpoints.
    """
    if not values["checkpoint.enable"] or "dataloader" in values["checkpoint.exclude_from_loading"]:
        return None
    places = (checkpoint_folder(values), folder / values["checkpoint.folder"])
    found = next((place for place in places if any(place.glob("step-*"))), None)
    if found is None:
        return None
    step = values["checkpoint.load_step"]
    try:
        stored = latest_state(found if step == -1 else found / f"step-{step}")
    except ConfigError:  # none has a state
        return None
    except (ResumeError, OSError):
        return StoredState(found, 0, None, "", is_damaged=True)
    return replace(stored, state_dict=None, is_damaged=True) if stored.note else stored


def continued_from(
    run: RunConfig, train: Dataset, step: int, state_dict: dict[str, Any]
) -> tuple[Dataset, int]:
    """The dataset of a run that resumes from a checkpoint, and the slot at which the run ends.

    Raises:
        ResumeError: The run cannot resume, because data or settings were changed.
    """
    saved, trained = parse_state(state_dict), schedule_of_state(state_dict)
    schedule = resumed(
        trained or run.schedule,
        run.batch_changes,
        saved,
        size=run.global_batch_size,
        step=step,
        seq_len=run.blend.seq_length,
        may_shrink=run.may_shrink,
    )
    train, skips = with_skips(train, placed_skips(run.skips, schedule, saved.skipped))
    continued = resume(saved, train)
    end = consumed_at(with_jumps(schedule, skips), max(step, run.steps))
    return continued.dataset, max(continued.consumed_samples, end)


class Continued(NamedTuple):
    """The dataset of a run with what it has read before a checkpoint."""

    dataset: Dataset
    about: str = ""
    """A sentence, if data, weights or lengths change on the way."""
    warning: str = ""
    """Why ``dataset`` is that of a new run instead."""


def planned_from(run: RunConfig, train: Dataset, stored: StoredState | None) -> Continued:
    """The dataset of a run that resumes from ``stored``. ``train`` is that of a new run."""
    if stored is None:
        return Continued(train)
    if stored.state_dict is None:
        return Continued(
            train, warning="the latest checkpoint is damaged, so this plan is of a new run"
        )
    if run.segments:  # the trainer compares them itself
        return Continued(train, warning=change_after(stored, len(train.segments)))
    try:
        dataset, stop_slot = continued_from(run, train, stored.step, stored.state_dict)
    except (ConfigError, ResumeError) as error:
        what, *more = map(str, error.args)
        remedy = f" {more[-1].rstrip('.')}." if more else ""
        return Continued(
            train,
            warning=f"training would refuse to resume: {what.rstrip(':.')}.{remedy} This plan is "
            f"of a new run with the current data and settings",
        )
    phases = phases_of(dataset)
    has_other_lengths = len({phase.seq_len for phase in phases}) > 1
    if has_other_lengths or (stored.step <= run.steps and stop_slot != run.stop_slot):
        what = "samples of another length" if has_other_lengths else "another number of samples"
        return Continued(
            train,
            warning=f"a step before {stored.path.name} read {what} than is configured now, but "
            f"this plan is of a new run with the current settings",
        )
    if len(phases) <= 1:  # none in the original's order
        return Continued(dataset)
    return Continued(
        dataset,
        about=f"The run continues from {stored.path.name}, and what it has read before counts too.",
    )

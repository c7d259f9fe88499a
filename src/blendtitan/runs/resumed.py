"""The data of a run that goes on from its latest checkpoint, as ``blendtitan train`` does."""

from contextlib import suppress
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


def resumes_from_latest(values: Values) -> bool:
    """Whether a run loads all of its latest checkpoint, if it has one, and nothing else."""
    others = ("initial_load_path", "exclude_from_loading")
    is_plain = not any(values[f"checkpoint.{key}"] for key in others)
    return values["checkpoint.enable"] and is_plain and values["checkpoint.load_step"] == -1


def usable_state(folder: Path) -> StoredState | None:
    """The latest checkpoint of a folder; None if none has a state, or if a later one is damaged."""
    stored = None
    with suppress(BlendTitanError, OSError):
        stored = latest_state(folder)
    return None if stored is None or stored.state_dict is None or stored.note else stored


def state_to_resume(values: Values, folder: Path) -> StoredState | None:
    """The checkpoint from which ``train`` would go on.

    Args:
        values: Of all keys.
        folder: The folder of the configuration, which is the run's output folder if the run was
            moved there. Then it holds the checkpoints.
    """
    if not resumes_from_latest(values):
        return None
    places = (checkpoint_folder(values), folder / values["checkpoint.folder"])
    found = next((place for place in places if any(place.glob("step-*"))), None)
    return None if found is None else usable_state(found)


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
    if stored is None or stored.state_dict is None:
        return Continued(train)
    if run.segments or not phases_of(train):  # the trainer compares planned segments itself
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
        return Continued(
            train,
            warning=f"steps before {stored.path.name} had more, fewer or other lengths of samples "
            f"than configured now, but this plan is of a new run with the current settings",
        )
    if len(phases) == 1:
        return Continued(dataset)
    gone = {name for phase in phases for name in phase.corpora} - {*dataset.corpora}
    dropped = f" Corpora that it no longer reads: {', '.join(sorted(gone))}." if gone else ""
    return Continued(
        dataset,
        about=f"The run continues from {stored.path.name}, and what it has read before counts too."
        f"{dropped}",
    )

"""Where the answers about a run come from: its configuration, its checkpoints, its data."""

from dataclasses import dataclass
from pathlib import Path

from blendtitan.config import BlendConfig
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import BlendTitanError, ConfigError
from blendtitan.original.dataset import OriginalDataset
from blendtitan.pace import Pace, Paces, paces_of_state
from blendtitan.runs.checkpoints import StoredState, latest_state, own_state
from blendtitan.runs.contents import Contents
from blendtitan.runs.original_slots import OriginalSlots, as_one_split
from blendtitan.runs.run import Run, data_of_run, read_run
from blendtitan.runs.slots import History, Slots
from blendtitan.state import SavedState, parse_state
from blendtitan.storage.catalog import Catalog
from blendtitan.visible import quietly


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A run to ask about."""

    slots: Slots
    run: Run | None
    """None: only the state of a checkpoint is known."""

    contents: Contents | None
    """What the shards hold; None: the data is not known, or not there."""

    about: str
    """Where the order comes from, and why the data is not there, in a sentence."""

    num_samples: int
    """Samples of the whole run, as far as is known."""

    consumed_samples: int = 0
    """Samples that the run had read at the checkpoint; 0: none is known."""


def open_source(
    config: Path | None, state: Path | None = None, *, ranks: int | None = None
) -> Source:
    """A run, from its configuration or from a checkpoint, or from both.

    Args:
        config: TOML file of a run, or its folder; None: no data is read.
        state: Folder of a checkpoint, or of a run, whose latest one with a state counts; None:
            that of the run's folder. A run without any is taken never to be changed.
        ranks: Data-parallel ranks, where the configuration leaves the steps' samples open.

    Raises:
        ConfigError: Neither is given, or one cannot be used.
        ResumeError: The checkpoint cannot be read.
        ShardError: A shard cannot be used, and no state is given.
    """
    run = None if config is None else read_run(config, ranks=ranks)
    if state is None:
        if run is None:
            raise ConfigError("nothing to explain: name a run's configuration, or --state")
        stored = own_state(config) if config is not None and config.is_dir() else None
        return source_of_run(run) if stored is None else _of_state(stored, run)
    return _of_state(latest_state(state), run)


def source_of_run(run: Run) -> Source:
    """A run that is never changed; errors as ``data_of_run``."""
    catalog, _, train = data_of_run(run)
    paces = (Pace(global_batch_size=run.global_batch_size),)
    slots: Slots
    if isinstance(train, OriginalDataset):
        catalog = as_one_split(catalog)
        slots = OriginalSlots.of_dataset(train, catalog, paces)
    else:
        assert isinstance(train, BlendedDataset)
        slots = History.of_dataset(train, paces)
    return Source(
        slots=slots,
        run=run,
        contents=_contents(run.blend, catalog, "train"),
        about=f"{run.path}, as if it was never changed",
        num_samples=run.num_samples,
    )


def _of_state(stored: StoredState, run: Run | None) -> Source:
    assert stored.state_dict is not None
    saved, paces = parse_state(stored.state_dict), paces_of_state(stored.state_dict)
    if not saved.phases:
        if run is None:
            raise ConfigError(
                f"{stored.path}: the original's order is in its index, not in the checkpoint. Name "
                f"the run's configuration as well"
            )
        return source_of_run(run)
    if not paces and run is not None:
        paces = (Pace(global_batch_size=run.global_batch_size),)
    history = History.of_state(saved, paces)
    about = f"{stored.path}, at step {stored.step:,} after {saved.consumed_samples:,} samples"
    about += f" ({stored.note})" if stored.note else ""
    contents = None
    if run is None:
        about += "; shards are known by name alone, without the run's configuration"
    else:
        try:
            with quietly():
                contents = _contents(run.blend, read_catalog(run.blend), history.split)
        except (BlendTitanError, OSError) as error:
            about += f"; the data cannot be read: {error}"
    return Source(
        slots=history,
        run=run,
        contents=contents,
        about=about,
        num_samples=_num_samples(saved, paces, run, stored.step),
        consumed_samples=saved.consumed_samples,
    )


def _num_samples(saved: SavedState, paces: Paces, run: Run | None, step: int) -> int:
    """Samples at the end of the run, as far as it is known: at least those consumed."""
    if run is None or not paces:
        return saved.consumed_samples
    left = max(0, run.steps - step) * paces[-1].global_batch_size
    return saved.consumed_samples + left


def _contents(blend: BlendConfig, catalog: Catalog, split: str) -> Contents:
    return Contents.build(catalog, split, eod_id=blend.eod_token_id, max_open=blend.max_open_shards)

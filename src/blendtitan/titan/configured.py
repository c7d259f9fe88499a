"""From a loader's configuration to the dataset that it reads, opened once for all loaders."""

from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING

from blendtitan.config import BlendConfig
from blendtitan.dataset.build import Datasets, build_datasets
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import ConfigError, EmptySplitError
from blendtitan.run.horizon import horizon
from blendtitan.run.keys import check_follows
from blendtitan.titan.shared_catalog import shared_catalog, shared_indices

if TYPE_CHECKING:
    from blendtitan.titan.dataloader import BlendCorpusDataLoader


def blend_config(
    config: "BlendCorpusDataLoader.Config", *, seq_len: int, eos_id: int | None
) -> BlendConfig:
    """The engine's configuration, completed with what the rest of the run decides.

    Raises:
        ConfigError: No data is named, ``seq_length`` contradicts the trainer's, or the number of
            samples that the original's order is made for is open.
    """
    data_file_list = config.data_file_list or config.dataset_path
    if data_file_list is None:
        raise ConfigError(
            "no data is named. Set blendcorpus.data_file_list, or training.dataset_path, to a "
            "file list or a folder of shards."
        )
    check_follows(
        "blendcorpus.seq_length", config.seq_length, other="training.seq_len", expected=seq_len
    )
    return BlendConfig(
        data_file_list=data_file_list,
        seq_length=seq_len,
        eod_token_id=eos_id if config.eod_token_id is None else config.eod_token_id,
        **horizon(
            config.order,
            train_samples=(config.train_samples, config.run_samples),
            eval_samples=(config.eval_samples, config.validation_samples),
        ),
        **{name: getattr(config, name) for name in _SAME_IN_BOTH},
    )


def configured_dataset(
    config: "BlendCorpusDataLoader.Config", *, seq_len: int, eos_id: int | None
) -> Dataset:
    """The split that a configuration reads, of all corpora.

    Raises:
        EmptySplitError: It holds no documents.
    """
    return _dataset(blend_config(config, seq_len=seq_len, eos_id=eos_id), config.split_name)


# The validator builds its loader anew for every validation: that must cost neither reads nor
# another broadcast. Every rank builds the same loaders in the same order.
@lru_cache(maxsize=4)
def _datasets(blend: BlendConfig) -> Datasets:
    catalog = shared_catalog(blend)
    indices = shared_indices(blend, catalog) if blend.has_horizon else None
    return build_datasets(blend, catalog, indices)


def _dataset(blend: BlendConfig, split_name: str) -> Dataset:
    dataset = getattr(_datasets(blend), split_name)
    if dataset is None:
        horizon = f", blendcorpus.eval_samples = {blend.eval_samples}" if blend.has_horizon else ""
        raise EmptySplitError(
            f"{blend.data_file_list}: no corpus has documents in the {split_name} split, with "
            f"blendcorpus.split = {blend.split!r}{horizon}. Give it a larger part, or, for valid, "
            f"set validation.enable = false."
        )
    return dataset


_SAME_IN_BOTH = {field.name for field in fields(BlendConfig)} - {
    "data_file_list",
    "seq_length",
    "eod_token_id",
    "segments",
    "train_samples",
    "eval_samples",
}
"""Fields that the engine's configuration and the loader's share."""

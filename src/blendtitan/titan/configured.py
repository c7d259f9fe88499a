"""From a loader's configuration to the dataset that it reads, opened once for all loaders."""

from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import TYPE_CHECKING

from torchtitan.components.tokenizer import BaseTokenizer

from blendtitan.config import BlendConfig, BlendKeys
from blendtitan.dataset.build import Datasets, build_datasets
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import ConfigError, EmptySplitError
from blendtitan.run.batches import check_follows
from blendtitan.titan.shared_catalog import shared_catalog, shared_indices
from blendtitan.titan.tokenizer import engine_tokenizer
from blendtitan.tokenizer_check.run import TokenizerCheck
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.titan.dataloader import BlendCorpusDataLoader

logger = visible_logger(__name__)


def blend_config(
    config: "BlendCorpusDataLoader.Config", *, seq_len: int, eos_id: int | None
) -> BlendConfig:
    """The engine's configuration, completed with what the rest of the run decides.

    Raises:
        ConfigError: No data is named, or ``seq_length`` contradicts the trainer's.
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
    keys = {key.name: getattr(config, key.name) for key in fields(BlendKeys)}
    return BlendConfig(
        **keys
        | {
            "data_file_list": data_file_list,
            "seq_length": seq_len,
            "eod_token_id": eos_id if config.eod_token_id is None else config.eod_token_id,
        }
    )


def configured_dataset(
    config: "BlendCorpusDataLoader.Config", *, seq_len: int, tokenizer: BaseTokenizer
) -> Dataset:
    """The split that a configuration reads, of all corpora.

    Raises:
        EmptySplitError: It holds no documents.
        TokenizerMismatchError: Shards were made with another tokenizer.
    """
    blend = blend_config(config, seq_len=seq_len, eos_id=tokenizer.eos_id)
    with_tokenizer = _WithTokenizer(tokenizer, id(tokenizer), config.tokenizer_check)
    datasets = _datasets(blend, with_tokenizer)
    return _split_of(datasets, blend, config.split_name)


# The validator builds its loader anew for every validation: that must cost neither reads nor
# another broadcast. Every rank builds the same loaders in the same order.
@lru_cache(maxsize=4)
def _datasets(blend: BlendConfig, with_tokenizer: "_WithTokenizer") -> Datasets:
    catalog = shared_catalog(blend, build_check=lambda: with_tokenizer.check(blend))
    indices = shared_indices(blend, catalog) if blend.has_horizon else None
    return build_datasets(blend, catalog, indices)


@dataclass(frozen=True, slots=True)
class _WithTokenizer:
    """The tokenizer of a run, equal to itself alone: not every kind of tokenizer has a hash."""

    tokenizer: BaseTokenizer = field(compare=False)
    number: int
    action: str

    def check(self, blend: BlendConfig) -> TokenizerCheck | None:
        """What compares the shards with it. None: it is of a kind that cannot be read here."""
        engine = engine_tokenizer(self.tokenizer)
        if engine is not None:
            return TokenizerCheck(blend, engine, action=self.action)
        logger.warning(
            "The shards are not compared with the tokenizer: blendtitan cannot read a %s.",
            type(self.tokenizer).__qualname__,
        )
        return None


def _split_of(datasets: Datasets, blend: BlendConfig, split_name: str) -> Dataset:
    dataset = getattr(datasets, split_name)
    if dataset is None:
        others = f", blendcorpus.eval_samples = {blend.eval_samples}" if blend.has_horizon else ""
        raise EmptySplitError(
            f"{blend.data_file_list}: no corpus has documents in the {split_name} split, with "
            f"blendcorpus.split = {blend.split!r}{others}. Give it a larger part, or, for valid, "
            f"set validation.enable = false."
        )
    return dataset

"""Validation on sets beside the valid split of the blend: ``[[validation.set]]``."""

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from blendtitan.config import SPLITS
from blendtitan.corpus_progress import perplexity, validation_metrics
from blendtitan.dataset.fixed import FixedSamples
from blendtitan.dataset.fixed_data import FixedData, losses_of
from blendtitan.dataset.held_out import check_held_out
from blendtitan.dataset.interface import Dataset
from blendtitan.settings.validation_sets import ValidationSet, validation_sets
from blendtitan.titan.dataloader import BlendCorpusDataLoader, configured_dataset
from blendtitan.titan.metrics import listed
from blendtitan.titan.validator import BlendCorpusValidator
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


class SetsValidator(BlendCorpusValidator):
    """The validator of a blend, run on fixed samples of sets as well.

    The blend itself may have no documents to validate on.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BlendCorpusValidator.Config):
        """That of a blend, with sets."""

        sets: tuple[ValidationSet, ...] = ()
        """Held-out data, each with a loss of its own."""

    def __init__(self, config: Config, **arguments: Any) -> None:
        loader = config.dataloader
        assert isinstance(loader, BlendCorpusDataLoader.Config)
        self._loaders: dict[str | None, BlendCorpusDataLoader.Config] = {None: loader}
        self._loaders |= {each.name: each.reading(loader) for each in config.sets}
        limits = {each.name: each.samples for each in config.sets}
        keys = {key: arguments[key] for key in ("seq_len", "tokenizer")}
        opened = _opened(config, **keys)
        # Without a valid split, the blend's place is taken by a set, and never read.
        taken = next(iter(opened))
        super().__init__(replace(config, dataloader=self._loaders[taken]), **arguments)
        samples_per_step = self.local_batch_size * self.dp_world_size
        self._data = [
            FixedData(None, dataset, self._blend, self._corpora)
            if name is None
            else FixedData.of(name, dataset, limit=limits[name], samples_per_step=samples_per_step)
            for name, dataset in opened.items()
        ]
        if self._logs_loss:
            of_sets = {d.name: f"{d.samples.num_samples:,}" for d in self._data if d.name}
            if taken is None:
                super()._log_samples()
            logger.info("Samples of each validation set: %s", listed(of_sets))

    def _log_samples(self) -> None:
        """Log nothing until it is known whether the blend is read."""

    def validate(self, model_parts: list[nn.Module], step: int) -> None:
        """Log losses and perplexities. A collective operation."""

        def loss_of(data: FixedData, fixed: FixedSamples) -> float:
            self._loader = self._loaders[data.name]
            return self._loss(fixed, model_parts, step)

        blend, losses = losses_of(self._data, loss_of)
        metrics = validation_metrics(blend, losses)
        if blend is None:
            self._metrics.logger.log(metrics, step)
        else:
            self._metrics.log_validation(loss=blend, step=step, extra_metrics=metrics)
        if self._logs_loss:
            shown = {
                name: f"{loss:.4f} (perplexity {perplexity(loss):.5g})"
                for name, loss in losses.items()
            }
            of_blend = "" if blend is None else f"  perplexity: {perplexity(blend):.5g}"
            logger.info(
                "validate step: %2d%s  loss of each corpus and set: %s",
                *(step, of_blend, listed(shown)),
            )


def with_sets(tables: list[dict[str, Any]], common: dict[str, Any]) -> SetsValidator.Config:
    """A validator's configuration with the tables of ``[[validation.set]]``.

    Raises:
        ConfigError: A table cannot be used.
    """
    if not common["enable"]:
        logger.warning("[[validation.set]] has no effect, because validation.enable is false.")
    return SetsValidator.Config(sets=validation_sets(tables), **common)


def _opened(config: SetsValidator.Config, **keys: Any) -> dict[str | None, Dataset]:
    """The valid split of the blend, under None, unless it is empty, and the sets, by name.

    Raises:
        ConfigError: A set has the name of a corpus, or training reads documents of it.
    """
    loader = config.dataloader
    assert isinstance(loader, BlendCorpusDataLoader.Config)
    train = configured_dataset(replace(loader, split_name="train"), **keys)
    has_tokens = train.catalog.split_tokens(SPLITS.index("valid")).any()
    opened: dict[str | None, Dataset] = {}
    if has_tokens and train.config.eval_samples != 0:  # in the original's order, 0 means none
        opened[None] = configured_dataset(loader, **keys)
    for each in config.sets:
        opened[each.name] = dataset = configured_dataset(each.reading(loader), **keys)
        check_held_out(each.name, dataset.catalog, train.catalog, allow_overlap=each.allow_overlap)
    return opened

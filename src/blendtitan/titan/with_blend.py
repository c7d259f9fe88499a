"""Change any TorchTitan configuration to train on a blend."""

import dataclasses
from typing import Any

from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.validate import Validator
from torchtitan.trainer import Trainer

from blendtitan.titan.checkpoint import BlendCheckpointManager
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.metrics import LossMetrics
from blendtitan.titan.trainer import BlendTrainer
from blendtitan.titan.validator import BlendCorpusValidator


def with_blend(config: Trainer.Config, loader: BlendCorpusDataLoader.Config) -> BlendTrainer.Config:
    """A copy of a TorchTitan configuration that trains on a blend.

    If the configuration validates on TorchTitan's own text data, the copy validates on the valid
    split of the blend, and reports each corpus. The metrics and checkpoint components are replaced
    only if they are TorchTitan's own; your components stay.

    Args:
        config: Configuration of any language model. It is not changed.
        loader: The blend. Its token ids must come from the configuration's tokenizer.
    """
    from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader

    return blended(
        config, loader, validator=BlendCorpusValidator.Config, text=HuggingFaceTextDataLoader.Config
    )


def blended(
    config: Trainer.Config,
    loader: BlendCorpusDataLoader.Config,
    *,
    validator: type[BlendCorpusValidator.Config],
    text: type,
) -> BlendTrainer.Config:
    """``with_blend`` for TorchTitan's loader of ``text``, whose validator ours replaces."""
    parts: dict[str, Any] = {**_fields(config), "dataloader": loader}
    if isinstance(config.validator.dataloader, text):
        valid = dataclasses.replace(loader, split_name="valid")
        kind = type(config.validator)
        kind = validator if kind is Validator.Config else kind
        parts["validator"] = kind(**{**_fields(config.validator), "dataloader": valid})
    if type(config.metrics) is MetricsProcessor.Config:
        parts["metrics"] = LossMetrics.Config(**_fields(config.metrics))
    if type(config.checkpoint) is CheckpointManager.Config:
        parts["checkpoint"] = BlendCheckpointManager.Config(**_fields(config.checkpoint))
    return BlendTrainer.Config(**parts)


def _fields(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}

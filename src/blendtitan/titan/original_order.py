"""What the original's order needs to know of a run."""

from torchtitan.trainer import Trainer

from blendtitan.settings.horizon import horizon, samples_of_run
from blendtitan.titan import upstream
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.validator import BlendCorpusValidator


def horizon_of(loader: BlendCorpusDataLoader.Config, config: Trainer.Config) -> dict[str, int]:
    """``train_samples`` and ``eval_samples`` of a run.

    Raises:
        ConfigError: Neither the loader's configuration nor the run determines a value.
    """
    validator = config.validator
    is_fixed = isinstance(validator, BlendCorpusValidator.Config)
    seq_len, _, size = upstream.sizes_of(config)
    run = samples_of_run(
        steps=config.training.steps,
        global_batch_size=size,
        # The validation loader has no schedule of its own, but the same index.
        batch_schedule=getattr(config.dataloader, "batch_schedule", ()),
        seq_len=seq_len,
        validates=validator.enable,
        validation=(validator.samples if is_fixed else None, validator.steps),
    )
    return horizon(loader, run)

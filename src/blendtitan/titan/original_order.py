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
    run = samples_of_run(
        steps=config.training.steps,
        global_batch_size=-1 if loader.batch_schedule else upstream.sizes_of(config)[2],
        validates=validator.enable,
        validation=(validator.samples if is_fixed else None, validator.steps),
    )
    return horizon(loader, run)

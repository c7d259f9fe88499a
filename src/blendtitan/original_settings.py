"""Settings of ``order = "blendcorpus"``, the order of the original."""

from blendtitan.config import BlendConfig
from blendtitan.errors import ConfigError

# The original uses NumPy's RandomState, whose seed has 32 bits.
_MAX_ORIGINAL_SEED = 2**32 - 1


def check_horizon(config: BlendConfig) -> None:
    """Check the settings that the order of the original needs, or does not have.

    Raises:
        ConfigError: A setting cannot be used, or needs that order.
    """
    if config.has_horizon:
        _check_original_order(config)
        return
    for name in ("train_samples", "eval_samples"):
        if getattr(config, name) is not None:
            raise ConfigError(
                f"{name} is {getattr(config, name)}, but order = {config.order!r} does not "
                f'depend on a number of samples. Leave it out, or set order = "blendcorpus".'
            )


def _check_original_order(config: BlendConfig) -> None:
    if config.segments or config.on_change != "error" or config.removed_documents is not None:
        raise ConfigError(
            'order = "blendcorpus" supports neither segments nor on_change nor removed_documents: '
            'delete these keys, or set order = "blendtitan".'
        )
    for name in ("train_samples", "eval_samples"):
        if getattr(config, name) is None:
            raise ConfigError(
                f'{name} is missing: order = "blendcorpus" depends on the number of samples. '
                f"Set it to that of the original run, steps times global batch size."
            )
    if config.seed > _MAX_ORIGINAL_SEED:
        raise ConfigError(
            f"seed is {config.seed}, expected at most {_MAX_ORIGINAL_SEED} with order = "
            f'"blendcorpus"'
        )
    if config.dataloader_type == "cyclic":
        raise ConfigError(
            'dataloader_type is "cyclic", which order = "blendcorpus" does not reproduce: '
            'expected "single", the original\'s default.'
        )
    if config.data_cache_path is None:
        raise ConfigError(
            'data_cache_path is missing: order = "blendcorpus" keeps an index there, which one '
            "process writes and all others read. Set it to a folder that all nodes share."
        )

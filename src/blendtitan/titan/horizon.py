"""How many samples the original's order is made for: as its keys say, else as the run decides."""

from blendtitan.errors import ConfigError

_DECIDED_BY = {
    "train_samples": "training.global_batch_size",
    "eval_samples": "validation.samples, or validation.steps and training.global_batch_size",
}


def horizon(
    order: str,
    *,
    train_samples: tuple[int | None, int | None],
    eval_samples: tuple[int | None, int | None],
) -> dict[str, int | None]:
    """``train_samples`` and ``eval_samples`` of a blend.

    Args:
        order: Of the blend. One without a horizon is given the keys alone, to refuse them.
        train_samples: What the key says, and what the run asks for.
        eval_samples: Likewise.

    Raises:
        ConfigError: Neither says.
    """
    found: dict[str, int | None] = {}
    for name, (key, run) in {"train_samples": train_samples, "eval_samples": eval_samples}.items():
        found[name] = key
        if order != "blendcorpus" or key is not None:
            continue
        if run is None:
            raise ConfigError(
                f'blendcorpus.order = "blendcorpus" depends on the number of samples, which this '
                f"run leaves open. Set {_DECIDED_BY[name]}, or blendcorpus.{name}."
            )
        found[name] = run
    return found

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


def samples_of_run(
    *,
    steps: int,
    global_batch_size: int,
    validates: bool,
    validation: tuple[int | None, int],
) -> tuple[int | None, int | None]:
    """Samples that a run trains on, and that each validation reads; None where it depends.

    Without ``training.global_batch_size`` they depend on the number of ranks, and with
    ``validation.steps = -1`` on the data.

    Args:
        steps: Of the run.
        global_batch_size: Samples of a step; below 1 where it depends on the ranks.
        validates: Whether the run validates at all.
        validation: ``samples``, or None, and ``steps`` of a validation.
    """
    known = global_batch_size > 0
    train = steps * global_batch_size if known else None
    samples, validation_steps = validation
    if not validates or samples is not None:
        return train, samples if validates else 0
    return train, validation_steps * global_batch_size if known and validation_steps > 0 else None

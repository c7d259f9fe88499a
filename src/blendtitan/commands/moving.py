"""Commands that move runs to blendtitan, and models from it: rescue and export."""

from argparse import Namespace

from blendtitan.commands.arguments import argument, command, json_flag, number, path
from blendtitan.errors import ConfigError
from blendtitan.terminal import print_result, say


@command(
    "rescue",
    "continue a run whose checkpoints do not say which data it has read",
    argument(
        "legs",
        "log files of TorchTitan, or the steps at which each leg began and ended, such as "
        "0-1000 1000-2500",
        metavar="LEG",
        nargs="*",
    ),
    number("--from-sample", "N", "instead of legs: the first sample to read; that of a run is 0"),
    path("--config", "CONFIG", "TOML file of the run", required=True),
    path("--checkpoint", "FOLDER", "checkpoint to continue from, such as outputs/step-2500"),
    path("--output", "FOLDER", "folder of checkpoints that the continued run resumes from"),
    json_flag("tables"),
)
def _rescue(options: Namespace) -> None:
    from blendtitan.moving.checkpoint import copy_with_state, step_of_checkpoint

    source, output = options.checkpoint, options.output
    if (source is None) != (output is None):
        raise ConfigError("--checkpoint is copied to --output: expected both, or neither")
    if (options.from_sample is None) != bool(options.legs):
        raise ConfigError("a run continues after its legs or from --from-sample: expected either")
    end = None if source is None else step_of_checkpoint(source)
    state = _state_after_legs(options, end) if options.legs else _state_from_sample(options, end)
    if state is not None and source is not None and output is not None:
        written = copy_with_state(source, output, state)
        if not options.json:
            say(f"{written}: a copy of {source} that resumes there.")


def _state_after_legs(options: Namespace, end: int | None) -> dict[str, str] | None:
    from blendtitan.moving.rescue import rescue

    found = rescue(options.config, options.legs, end=end)
    print_result(options.json, found.json, found.lines)
    return None if end is None else found.state()


def _state_from_sample(options: Namespace, step: int | None) -> dict[str, str]:
    from blendtitan.moving.placed import placed_state

    if step is None:
        raise ConfigError("--from-sample places a checkpoint: expected --checkpoint and --output")
    return placed_state(options.config, step=step, sample=options.from_sample)


@command(
    "export",
    "write a checkpoint as a Hugging Face model: weights, tokenizer and config.json",
    path("checkpoint", "CHECKPOINT", "folder of one checkpoint, such as outputs/checkpoint/step-9"),
    path("--hf", "DIR", "folder to create", required=True),
    path("--config", "CONFIG", "TOML file of the run (default: config.toml in the run's folder)"),
    argument(
        "--dtype",
        "type of the written weights (default: %(default)s)",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
    ),
)
def _export(options: Namespace) -> None:
    from blendtitan.moving.export import export

    exported = export(options.checkpoint, options.hf, config=options.config, dtype=options.dtype)
    say(exported.line())

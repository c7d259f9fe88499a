"""Commands that move runs to blendtitan, and models from it: rescue and export."""

from argparse import Namespace

from blendtitan.commands.arguments import argument, command, json_flag, path
from blendtitan.errors import ConfigError
from blendtitan.terminal import print_result, say


@command(
    "rescue",
    "continue a run of the original BlendCorpus whose loader position was never saved",
    argument(
        "legs",
        "log files of TorchTitan, or the steps at which each leg began and ended, such as "
        "0-1000 1000-2500",
        metavar="LEG",
        nargs="+",
    ),
    path("--config", "CONFIG", "TOML file of the run, in the original's order", required=True),
    path("--checkpoint", "FOLDER", "checkpoint to continue from, such as outputs/step-2500"),
    path("--output", "FOLDER", "folder of checkpoints that the continued run resumes from"),
    json_flag("tables"),
)
def _rescue(options: Namespace) -> None:
    from blendtitan.moving.checkpoint import copy_with_state, step_of_checkpoint
    from blendtitan.moving.rescue import rescue

    source, output = options.checkpoint, options.output
    if (source is None) != (output is None):
        raise ConfigError("--checkpoint is copied to --output: expected both, or neither")
    end = None if source is None else step_of_checkpoint(source)
    found = rescue(options.config, options.legs, end=end)
    print_result(options.json, found.json, found.lines)
    if source is not None and output is not None:
        written = copy_with_state(source, output, found.state())
        if not options.json:
            say("", f"{written}: a copy of {source} that resumes there.")
